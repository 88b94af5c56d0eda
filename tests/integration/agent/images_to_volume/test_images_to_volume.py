"""Images become volumes with the real tools: content, tail, keys, refusals, and no secret where others can read it."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from agent.images.errors import ImageSize, NeedsEncryptedType, NestedFormat, SecretMissing
from agent.images.inspect import Declared
from agent.luks import header
from agent.luks.errors import FormatRefused, WrongSecret
from agent.luks.model import Format, Secret, device_bytes, header_bytes, passphrase
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
    watched_for,
)
from tests.support.images import qemu_img
from tests.support.luks import verify_opens

pytestmark = needs_tools


@pytest.mark.parametrize("secret", [PASSPHRASE, SYMMETRIC], ids=["passphrase", "symmetric"])
@pytest.mark.parametrize("driver", ["qcow2", "luks"])
async def test_encrypted_image_to_encrypted_volume(
    images: Images, tmp_path: Path, runner: Runner, secret: Secret, driver: str
) -> None:
    data, image = images.data, images.get(secret, driver)
    own = Secret(secret.type, b"own-" + secret.value[4:])
    with watched_for([passphrase(secret), passphrase(own)]) as finds:
        await runner(
            image,
            ENCRYPTED_QCOW2 if driver == "qcow2" else ENCRYPTED_RAW,
            secret,
            encryption=Format(),
            volume_secret=own,
        )
    assert finds == []
    assert runner.path.stat().st_size == USABLE + header_bytes(Format()) == device_bytes(USABLE, Format())
    await verify_opens(runner.path, own)
    with pytest.raises(WrongSecret):
        await verify_opens(runner.path, secret)
    clear = decrypted(tmp_path, runner.path, own)
    assert len(clear) == USABLE
    assert hashlib.sha256(clear[:IMAGE_BYTES]).digest() == hashlib.sha256(data).digest()
    assert not clear[IMAGE_BYTES:].strip(b"\0")
    assert data[:4096] not in runner.path.read_bytes()
    assert runner.reports[-1].done == USABLE
    assert [r.done for r in runner.reports] == sorted(r.done for r in runner.reports)


async def test_passphrase_keeps_the_iterations_of_its_image(images: Images, tmp_path: Path, runner: Runner) -> None:
    image = images.get(PASSPHRASE, "luks")
    with image.open("rb") as file:
        theirs = header.parse(whole_file(file.fileno())).slots[0].iterations
    await runner(image, ENCRYPTED_RAW, PASSPHRASE, encryption=Format(key_size=256), volume_secret=PASSPHRASE)
    with runner.path.open("rb") as file:
        ours = header.parse(whole_file(file.fileno()))
    assert ours.slots[0].iterations == theirs
    assert (ours.key_bytes, ours.payload_offset) == (32, 2 * MiB)


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
async def test_plain_image_to_plain_volume(images: Images, tmp_path: Path, runner: Runner, kind: str) -> None:
    data = images.data
    qemu_img("convert", "-f", "raw", "-O", kind, str(images.clear), str(tmp_path / "image"))
    await runner(tmp_path / "image", Declared(kind))
    made = runner.path.read_bytes()
    assert (len(made), made[:IMAGE_BYTES]) == (USABLE, data)
    assert not made[IMAGE_BYTES:].strip(b"\0")
    assert runner.path.stat().st_blocks * 512 <= 20 * MiB


@pytest.mark.parametrize("kind", ["raw", "qcow2", "compressed"])
async def test_plain_image_to_encrypted_volume(images: Images, tmp_path: Path, runner: Runner, kind: str) -> None:
    data = images.data
    options = ["-c"] if kind == "compressed" else []
    disk_format = "raw" if kind == "raw" else "qcow2"
    qemu_img("convert", *options, "-f", "raw", "-O", disk_format, str(images.clear), str(tmp_path / "image"))
    await runner(tmp_path / "image", Declared(disk_format), encryption=Format())
    clear = decrypted(tmp_path, runner.path, VOLUME_KEY)
    assert clear == data + bytes(USABLE - IMAGE_BYTES)


@pytest.mark.parametrize("kind", ["raw", "encrypted"])
async def test_luks2_volume(images: Images, tmp_path: Path, runner: Runner, kind: str) -> None:
    data, fmt = images.data, Format("luks2")
    if kind == "raw":
        await runner(images.clear, Declared("raw"), encryption=fmt)
    else:
        image = images.get(PASSPHRASE)
        await runner(image, ENCRYPTED_QCOW2, PASSPHRASE, encryption=fmt)
    await verify_opens(runner.path, VOLUME_KEY)
    with runner.path.open("rb") as file:
        made = header.parse(whole_file(file.fileno()))
    assert (made.version, made.payload_bytes, made.payload_offset, made.sector_size) == (2, USABLE, 16 * MiB, 512)
    key = tmp_path / "volume.key"
    key.write_bytes(passphrase(VOLUME_KEY))
    # Decrypts in place, in user space: an independent reader of what we wrote.
    subprocess.run(
        ["cryptsetup", "reencrypt", "--decrypt", "--batch-mode", "--disable-locks", "--force-offline-reencrypt",
         "--key-file", key, "--header", tmp_path / "exported", runner.path],
        check=True, capture_output=True,
    )  # fmt: skip
    assert runner.path.read_bytes()[:USABLE] == data + bytes(USABLE - IMAGE_BYTES)


async def test_wrong_secret_touches_nothing(images: Images, tmp_path: Path, runner: Runner) -> None:
    for driver, declared in (("qcow2", ENCRYPTED_QCOW2), ("luks", ENCRYPTED_RAW)):
        image = images.get(PASSPHRASE, driver)
        with pytest.raises(WrongSecret):
            await runner(image, declared, SYMMETRIC, encryption=Format())
        assert runner.untouched()


async def test_refusals_before_anything_is_touched(images: Images, tmp_path: Path, runner: Runner) -> None:
    image = images.get(PASSPHRASE)
    with pytest.raises(NeedsEncryptedType):
        await runner(image, ENCRYPTED_QCOW2, PASSPHRASE)
    with pytest.raises(SecretMissing):
        await runner(image, ENCRYPTED_QCOW2, None, encryption=Format())
    with pytest.raises(SecretMissing):
        await runner(image, ENCRYPTED_QCOW2, PASSPHRASE, encryption=Format(), volume_secret=None)
    with pytest.raises(ImageSize):
        await runner(image, ENCRYPTED_QCOW2, PASSPHRASE, encryption=Format(), usable=16 * MiB)
    with pytest.raises(FormatRefused):
        await runner(image, ENCRYPTED_QCOW2, PASSPHRASE, encryption=Format(cipher="serpent-lrw-benbi"))
    assert runner.untouched()


@pytest.mark.parametrize("driver", ["qcow2", "luks"])
async def test_an_image_inside_of_an_encrypted_image(tmp_path: Path, runner: Runner, driver: str) -> None:
    inner = tmp_path / "inner"
    qemu_img("create", "-q", "-f", "qcow2", "-b", "/etc/hostname", "-F", "raw", str(inner), "16M")
    os.truncate(inner, IMAGE_BYTES)
    image = encrypted(tmp_path, inner, PASSPHRASE, driver)
    with pytest.raises(NestedFormat):
        await runner(image, ENCRYPTED_QCOW2 if driver == "qcow2" else ENCRYPTED_RAW, PASSPHRASE, encryption=Format())
    assert runner.untouched()
