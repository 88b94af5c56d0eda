"""Images become volumes with the real tools: content, tail, keys, refusals, and no secret where others can read it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.base.errors import BrickyardError
from agent.copying.errors import CopyCancelled
from agent.copying.model import CopyProgress
from agent.images.conversion import Watch
from agent.images.errors import ImageSize, NeedsEncryptedType, NestedFormat, SecretMissing
from agent.images.inspect import Declared
from agent.images.resume import NEVER, Resume
from agent.images.volume import Means, OpenedImage, Target, image_to_volume
from agent.luks import header
from agent.luks.errors import FormatRefused, NotLuks, WrongSecret
from agent.luks.model import Format, Secret, device_bytes, header_bytes, passphrase
from agent.luks.unlock import unlock
from agent.luks.window import whole_file
from tests.support.images import qemu_img
from tests.support.luks import verify_opens

pytestmark = pytest.mark.skipif(
    not (shutil.which("qemu-img") and shutil.which("cryptsetup")), reason="needs qemu-img and cryptsetup"
)
MiB = 1 << 20
IMAGE_BYTES, USABLE = 32 * MiB, 48 * MiB
PASSPHRASE = Secret("passphrase", "Canary-pässphrase-7d1f".encode())
SYMMETRIC = Secret("symmetric", bytes(range(32)))
VOLUME_KEY = Secret("symmetric", bytes(range(100, 132)))
ENCRYPTED_QCOW2, ENCRYPTED_RAW = Declared("qcow2", "bare", True), Declared("raw", "luks", True)


def clear_content(path: Path) -> bytes:
    """Half of it data, in runs, the rest holes; a bootable-looking first sector."""
    data = bytearray(IMAGE_BYTES)
    for at in range(0, IMAGE_BYTES, 8 * MiB):
        data[at : at + 4 * MiB] = os.urandom(4 * MiB)
    data[0:2], data[510:512] = b"\xeb\x63", b"\x55\xaa"
    path.write_bytes(data)
    return bytes(data)


def encrypted(folder: Path, clear: Path, secret: Secret, driver: str = "qcow2", more: str = "") -> Path:
    key, image = folder / "key", folder / f"image.{driver}"
    key.write_bytes(passphrase(secret))
    prefix = "encrypt." if driver == "qcow2" else ""
    extra = ["encrypt.format=luks"] if prefix else []
    options = ",".join([*extra, f"{prefix}key-secret=s", f"{prefix}iter-time=10"])
    qemu_img(
        "create",
        "-q",
        "-f",
        driver,
        "--object",
        f"secret,id=s,file={key}",
        "-o",
        options,
        *more.split(),
        str(image),
        str(IMAGE_BYTES),
    )
    target = ",".join([f"driver={driver}", f"file.filename={image}", *extra, f"{prefix}key-secret=s"])
    source = f"driver=raw,file.filename={clear}"
    qemu_img("convert", "-n", "--object", f"secret,id=s,file={key}", "--image-opts", source,
             "--target-image-opts", target)  # fmt: skip
    return image


@dataclass
class Images:
    """One clear content, and encrypted images of it, made once for all tests."""

    folder: Path
    clear: Path
    data: bytes
    made: dict[tuple[str, str, str], Path] = field(default_factory=dict)

    def get(self, secret: Secret, driver: str = "qcow2", more: str = "") -> Path:
        """`more` are further options of qemu-img, separated by spaces."""
        name = (driver, secret.type, more)
        if name not in self.made:
            folder = self.folder / str(len(self.made))
            folder.mkdir(exist_ok=True)
            self.made[name] = encrypted(folder, self.clear, secret, driver, more)
        return self.made[name]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    folder = tmp_path_factory.mktemp("images")
    yield Images(folder, folder / "source", clear_content(folder / "source"))
    shutil.rmtree(folder)


def decrypted(folder: Path, volume: Path, secret: Secret) -> bytes:
    key, out = folder / "volume.key", folder / "clear"
    key.write_bytes(passphrase(secret))
    qemu_img("convert", "--object", f"secret,id=s,file={key}", "--image-opts",
         f"driver=luks,file.filename={volume},key-secret=s", "-O", "raw", str(out))  # fmt: skip
    return out.read_bytes()


class Runner:
    """Runs a conversion and keeps what was reported."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "partial"
        self.path.write_bytes(b"left by an earlier try" * 1000)
        self.reports: list[CopyProgress] = []
        self.cancel, self.heard = asyncio.Event(), asyncio.Event()
        self.means = Means(passphrase_iterations=1500)

    async def __call__(
        self,
        image: Path,
        declared: Declared,
        secret: Secret | None = None,
        *,
        encryption: Format | None = None,
        volume_secret: Secret | None = VOLUME_KEY,
        usable: int = USABLE,
        resume: Resume = NEVER,
    ) -> None:
        fd = os.open(image, os.O_RDONLY)
        try:
            target = Target(self.path, usable, encryption, volume_secret if encryption else None)
            watch = Watch(self.report, self.cancel)
            await image_to_volume(OpenedImage(fd, declared, secret), target, self.means, watch, resume)
        finally:
            os.close(fd)

    def report(self, progress: CopyProgress) -> None:
        self.reports.append(progress)
        self.heard.set()

    def untouched(self) -> bool:
        return self.path.read_bytes().startswith(b"left by")


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@contextmanager
def watched_for(canaries: list[bytes]) -> Iterator[list[str]]:
    """Reads the command line and environment of every process while the block runs; yields the finds."""
    found: list[str] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.005):
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    try:
                        text = (process / name).read_bytes()
                    except OSError:
                        continue
                    found.extend(f"{process}/{name}" for canary in canaries if canary in text)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


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


async def test_compressed_clusters_of_an_encrypted_image_are_those_that_qemu_reads(
    tmp_path: Path, runner: Runner, images: Images
) -> None:
    image, key = encrypted(tmp_path, images.clear, PASSPHRASE), tmp_path / "key"
    node = f"driver=qcow2,file.filename={image},encrypt.format=luks,encrypt.key-secret=s"
    secret = ["--object", f"secret,id=s,file={key}"]
    written = [
        "-c",
        "write -c -P 65 5M 64k",
        "-c",
        "write -c -P 66 6M 64k",
        "-c",
        "write -c -P 68 6208k 64k",
        "-c",
        "write -P 67 6M 4k",
    ]
    subprocess.run(["qemu-io", *secret, *written, "--image-opts", node], check=True, capture_output=True, timeout=120)
    # qemu-img makes none itself.
    made = [
        *secret,
        "-c",
        "-O",
        "qcow2",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s",
        images.clear,
        tmp_path / "x",
    ]
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


async def test_cancel_ends_all_and_empties_the_file(images: Images, runner: Runner) -> None:
    image = images.get(PASSPHRASE)

    async def work() -> None:
        await runner(image, ENCRYPTED_QCOW2, PASSPHRASE, encryption=Format(), usable=4096 * MiB)

    task = asyncio.create_task(work())
    await asyncio.wait_for(runner.heard.wait(), 30)
    runner.cancel.set()
    with pytest.raises(CopyCancelled):
        await task
    assert runner.path.stat().st_size == 0


RESUMED = """
import asyncio, os, sys
from pathlib import Path
from agent.images.inspect import Declared
from agent.images.resume import Resume
from agent.images.resume import NEVER, Resume
from agent.images.volume import Means, OpenedImage, Target, image_to_volume
from agent.images.conversion import Watch
from agent.luks.model import Format, Secret
key = Secret("symmetric", bytes(range(32)))
image = OpenedImage(os.open(sys.argv[1], 0), Declared("qcow2", "bare", True), key)
target = Target(Path(sys.argv[2]), 320 << 20, Format(sys.argv[3]), key)
watch = Watch(lambda progress: None, asyncio.Event())
async def save(file, done):
    print(file, done, flush=True)
    if done >= 128 << 20:
        await asyncio.Event().wait()
asyncio.run(image_to_volume(image, target, Means(), watch, Resume(save)))
"""


@pytest.mark.parametrize("kind", ["luks1", "luks2"])
async def test_a_killed_stream_goes_on_from_its_checkpoint(images: Images, runner: Runner, kind: Any) -> None:
    image, fmt = images.get(SYMMETRIC), Format(kind)
    argv = [sys.executable, "-c", RESUMED, str(image), str(runner.path), kind]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3], text=True) as agent:
        assert agent.stdout is not None
        notes = [agent.stdout.readline().rpartition(" ") for _ in range(2)]
        agent.kill()
    (file, _, first), (_, _, done) = notes
    assert 0 < int(first) < int(done) < 320 * MiB
    with pytest.raises(NotLuks), runner.path.open("rb") as half:
        header.parse(whole_file(half.fileno()))
    # Bytes before the checkpoint are not written again: blank some of them, to be found blank.
    blank = runner.path.read_bytes()[header_bytes(fmt) + 64 * MiB :][:4096]
    with runner.path.open("r+b") as half:
        half.seek(header_bytes(fmt) + 64 * MiB)
        half.write(bytes(4096))
    saved: list[tuple[str, int]] = []

    async def save(file: str, done: int) -> None:
        saved.append((file, done))

    resume = Resume(save, file, int(done))
    await runner(image, ENCRYPTED_QCOW2, SYMMETRIC, encryption=fmt, volume_secret=SYMMETRIC, usable=320 * MiB,
                 resume=resume)  # fmt: skip
    assert runner.reports[0].done >= int(done)
    assert saved[-1] == (file, 320 * MiB)
    with runner.path.open("r+b") as made:
        made.seek(header_bytes(fmt) + 64 * MiB)
        assert made.read(4096) == bytes(4096)
        made.seek(header_bytes(fmt) + 64 * MiB)
        made.write(blank)
    await verify_opens(runner.path, SYMMETRIC)
    with runner.path.open("rb") as made:
        window = whole_file(made.fileno())
        clear = unlock(window, header.read(window), passphrase(SYMMETRIC))
        made.seek(header_bytes(fmt))
        assert clear.decrypt(made.read(), 0) == images.data + bytes(320 * MiB - IMAGE_BYTES)
    # Another file, or another secret: nothing of it is believed.
    for other in (Resume(save, "another", 320 * MiB), resume):
        await runner(image, ENCRYPTED_QCOW2, SYMMETRIC, encryption=fmt, resume=other)
        await verify_opens(runner.path, VOLUME_KEY)
        assert runner.path.stat().st_size == device_bytes(USABLE, fmt)
