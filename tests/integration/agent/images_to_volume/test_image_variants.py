"""What others make of images, ciphers and clusters: read as the tools that made them read it, or refused."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from agent.base.errors import BrickyardError
from agent.images.inspect import Declared
from agent.luks import header
from agent.luks.model import Format, header_bytes, passphrase
from agent.luks.unlock import unlock
from agent.luks.window import whole_file
from tests.integration.agent.images_to_volume.making import (
    ENCRYPTED_QCOW2,
    ENCRYPTED_RAW,
    IMAGE_BYTES,
    PASSPHRASE,
    SYMMETRIC,
    USABLE,
    VOLUME_KEY,
    Images,
    MiB,
    Runner,
    decrypted,
    encrypted,
    needs_tools,
)
from tests.support.images import qemu_img
from tests.support.luks import verify_opens

pytestmark = needs_tools


async def test_compressed_clusters_of_an_encrypted_image_are_those_that_qemu_reads(
    tmp_path: Path, runner: Runner, images: Images
) -> None:
    image, key = encrypted(tmp_path, images.clear, PASSPHRASE), tmp_path / "key"
    node = f"driver=qcow2,file.filename={image},encrypt.format=luks,encrypt.key-secret=s"
    secret = ["--object", f"secret,id=s,file={key}"]
    commands = ("write -c -P 65 5M 64k", "write -c -P 66 6M 64k", "write -c -P 68 6208k 64k", "write -P 67 6M 4k")
    written = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", *secret, *written, "--image-opts", node], check=True, capture_output=True, timeout=120)
    # qemu-img makes none itself.
    options = ["-O", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s"]
    made = [*secret, "-c", *options, images.clear, tmp_path / "x"]
    refused = subprocess.run(["qemu-img", "convert", *made], check=False, capture_output=True, timeout=120)
    assert refused.returncode == 1
    assert b"Compression and encryption" in refused.stderr
    out = tmp_path / "seen"
    qemu_img("convert", *secret, "--image-opts", node, "-O", "raw", str(out))
    await runner(image, ENCRYPTED_QCOW2, PASSPHRASE, encryption=Format("luks1", "serpent-xts-plain64", 512))
    assert decrypted(tmp_path, runner.path, VOLUME_KEY)[:IMAGE_BYTES] == out.read_bytes()


async def test_crafted_by_real_tools(tmp_path: Path, runner: Runner) -> None:
    base = tmp_path / "base"
    base.write_bytes(bytes(MiB))
    cases = {
        "image.backing-file": ["-b", str(base), "-F", "raw"],
        "image.data-file": ["-o", f"data_file={tmp_path / 'data'}"],
    }
    for code, options in cases.items():
        image = tmp_path / code
        qemu_img("create", "-q", "-f", "qcow2", *options, str(image), "1M")
        with pytest.raises(BrickyardError) as caught:
            await runner(image, Declared("qcow2"))
        assert caught.value.code == code
        with pytest.raises(BrickyardError) as caught:
            await runner(image, Declared("raw"))
        assert caught.value.code == "image.format-mismatch"
    image = tmp_path / "snapshots"
    qemu_img("create", "-q", "-f", "qcow2", str(image), "1M")
    qemu_img("bitmap", "--add", str(image), "b0")
    with pytest.raises(BrickyardError) as caught:
        await runner(image, Declared("qcow2"))
    assert caught.value.code == "image.bitmaps"
    qemu_img("bitmap", "--remove", str(image), "b0")
    qemu_img("snapshot", "-c", "one", str(image))
    with pytest.raises(BrickyardError) as caught:
        await runner(image, Declared("qcow2"))
    assert caught.value.code == "image.internal-snapshots"
    assert runner.untouched()


def luks2(folder: Path, data: bytes, *options: str) -> Path:
    """An image of LUKS2 with that content, encrypted in place by cryptsetup in user space."""
    image, key = folder / "image", folder / "key"
    key.write_bytes(passphrase(PASSPHRASE))
    image.write_bytes(data + bytes(32 * MiB))
    subprocess.run(
        ["cryptsetup", "reencrypt", "--encrypt", "--batch-mode", "--disable-locks", "--force-offline-reencrypt",
         "--type", "luks2", "--reduce-device-size", "32M", "--key-file", key, *options, image],
        check=True, capture_output=True,
    )  # fmt: skip
    # Half of the room that it took was for its own work; what is left of it there was never encrypted.
    os.truncate(image, 16 * MiB + len(data))
    return image


PBKDF2 = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
ARGON2 = ["--pbkdf-memory", "65536", "--pbkdf-force-iterations", "4", "--pbkdf-parallel", "2"]


@pytest.mark.parametrize(
    "options",
    [
        PBKDF2,
        ["--pbkdf", "argon2id", *ARGON2, "--sector-size", "512"],
        ["--pbkdf", "argon2i", *ARGON2, "--sector-size", "4096"],
        [*PBKDF2, "--sector-size", "2048", "--cipher", "aes-cbc-essiv:sha256", "--key-size", "256", "--hash", "sha512"],
    ],
    ids=["pbkdf2", "argon2id", "argon2i-4096", "cbc-2048"],
)
async def test_luks2_image(images: Images, tmp_path: Path, runner: Runner, options: list[str]) -> None:
    image = luks2(tmp_path, images.data, *options)
    await runner(image, ENCRYPTED_RAW, PASSPHRASE, encryption=Format())
    clear = decrypted(tmp_path, runner.path, VOLUME_KEY)
    assert hashlib.sha256(clear[:IMAGE_BYTES]).digest() == hashlib.sha256(images.data).digest()
    assert not clear[IMAGE_BYTES:].strip(b"\0")


@pytest.mark.parametrize(
    "more",
    [
        "-o encrypt.cipher-alg=aes-128",
        "-o encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256",
        "-o cluster_size=4096,encrypt.hash-alg=sha512",
        "-o cluster_size=512",
        "-o compat=0.10",
    ],
)
async def test_other_ciphers_and_clusters(images: Images, tmp_path: Path, runner: Runner, more: str) -> None:
    image = images.get(SYMMETRIC, "qcow2", more)
    await runner(image, ENCRYPTED_QCOW2, SYMMETRIC, encryption=Format("luks2"), usable=IMAGE_BYTES)
    await verify_opens(runner.path, VOLUME_KEY)
    with runner.path.open("rb") as file:
        window = whole_file(file.fileno())
        opened = unlock(window, header.read(window), passphrase(VOLUME_KEY))
        assert opened.decrypt(runner.path.read_bytes()[16 * MiB :], 0) == images.data


@pytest.mark.parametrize("fmt", [Format(), Format("luks2"), None])
@pytest.mark.parametrize("kind", ["extended_l2=on", "compression_type=zstd"])
async def test_subclusters_and_zstd(
    images: Images, tmp_path: Path, runner: Runner, fmt: Format | None, kind: str
) -> None:
    zstd, image = "zstd" in kind, tmp_path / "image"
    if zstd or fmt is None:
        compress = ["-c"] if zstd else []
        qemu_img("convert", *compress, "-f", "raw", "-O", "qcow2", "-o", kind, str(images.clear), str(image))
        await runner(image, Declared("qcow2"), encryption=fmt)
    else:
        image = images.get(SYMMETRIC, "qcow2", f"-o {kind}")
        await runner(image, ENCRYPTED_QCOW2, SYMMETRIC, encryption=fmt)
    wanted = images.data + bytes(USABLE - IMAGE_BYTES)
    if fmt is None:
        assert runner.path.read_bytes() == wanted
        return
    await verify_opens(runner.path, VOLUME_KEY)
    with runner.path.open("rb") as file:
        window = whole_file(file.fileno())
        opened = unlock(window, header.read(window), passphrase(VOLUME_KEY))
        assert opened.decrypt(runner.path.read_bytes()[header_bytes(fmt) :], 0) == wanted
    assert runner.reports[-1].done == USABLE
