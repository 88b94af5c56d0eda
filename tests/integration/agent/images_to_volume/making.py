"""Images with known content, and what makes a volume of one: for the tests of this folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.copying.model import CopyProgress
from agent.images.conversion import Watch
from agent.images.inspect import Declared
from agent.images.resume import NEVER, Resume
from agent.images.volume import Means, OpenedImage, Target, image_to_volume
from agent.luks.model import Format, Secret, passphrase
from tests.support.images import qemu_img

needs_tools = pytest.mark.skipif(
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
    qemu_img("create", "-q", "-f", driver, "--object", f"secret,id=s,file={key}", "-o", options, *more.split(),
             str(image), str(IMAGE_BYTES))  # fmt: skip
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
