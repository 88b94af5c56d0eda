"""Looking at the bytes from outside, with cryptsetup and qemu-img and the volume's own secret."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

from demo.place import DemoFailed, Place
from demo.prepare import SOURCE_BYTES, Secret, Source
from demo.running import Site
from demo.tools import by_fd, run

GiB = 1 << 30
_CHUNK = 4 << 20
BRIEF = SOURCE_BYTES + (16 << 20)


def own_secret(site: Site, key_id: str) -> Secret:
    """A secret as it lies sealed in the coordinator's database, opened with the site's key-encryption key."""
    from sqlalchemy import create_engine

    from coordinator.keys import kek
    from coordinator.keys.store import KeyStore

    state = site.folder / "coordinator"
    engine = create_engine(f"sqlite:///file:{state / 'coordinator.db'}?mode=ro&uri=true")
    try:
        with engine.connect() as connection:
            found = KeyStore(*kek.load(state / "kek")).get(connection, key_id)
    finally:
        engine.dispose()
    return Secret(found.type, found.value)


def is_raw_luks(path: Path) -> None:
    """The volume begins with a LUKS header, not with that of any image format."""
    with path.open("rb") as file:
        if file.read(6) != b"LUKS\xba\xbe":
            raise DemoFailed(f"{path.name} does not begin with a LUKS header")
    run("cryptsetup", "isLuks", str(path))


def opens(path: Path, secret: Secret) -> None:
    """A key slot opens with the secret, says cryptsetup."""
    with by_fd(secret.passphrase) as fd:
        run("cryptsetup", "open", "--test-passphrase", "--key-file", f"/dev/fd/{fd}", str(path), fds=(fd,))


def stays_shut(path: Path, wrong: Secret) -> None:
    """No key slot opens with another secret."""
    try:
        opens(path, wrong)
    except DemoFailed:
        return
    raise DemoFailed(f"{path.name} opens with a wrong passphrase")


def inside(path: Path, secret: Secret) -> int:
    """Bytes that the volume gives inside of its encryption."""
    with by_fd(secret.passphrase) as fd:
        text = run(
            "qemu-img", "info", "-U", "--output=json", "--object", f"secret,id=s0,file=/dev/fd/{fd}", "--image-opts",
            f"driver=luks,key-secret=s0,file.driver={_driver(path)},file.filename={path}", fds=(fd,),
        )  # fmt: skip
    return int(json.loads(text)["virtual-size"])


def content(place: Place, path: Path, secret: Secret, source: Source, size: int = BRIEF) -> int:
    """The first clear bytes have the sha256 of the source, and zeros follow up to `size`; returns the bytes read.

    The clear bytes are written to memory alone.
    """
    clear = place.memory / f"proof-{path.name}"
    try:
        _decrypt(path, secret, size, clear)
        with clear.open("rb") as file:
            length = source.path.stat().st_size
            digest = hashlib.sha256()
            for at in range(0, length, _CHUNK):
                digest.update(os.pread(file.fileno(), min(_CHUNK, length - at), at))
            if digest.hexdigest() != source.sha256:
                raise DemoFailed(f"the clear bytes of {path.name} are not those of the source")
            if clear.stat().st_size != size or not _zeros(file.fileno(), length, size):
                raise DemoFailed(f"after the image's bytes {path.name} does not hold zeros up to {size}")
    finally:
        clear.unlink(missing_ok=True)
    return size


def _decrypt(path: Path, secret: Secret, size: int, clear: Path) -> None:
    with by_fd(secret.passphrase) as fd:
        volume = f"file.driver=luks,file.key-secret=s0,file.file.driver={_driver(path)},file.file.filename={path}"
        run(
            "qemu-img", "convert", "-U", "-O", "raw", "--object", f"secret,id=s0,file=/dev/fd/{fd}", "--image-opts",
            f"driver=raw,offset=0,size={size},{volume}", str(clear), fds=(fd,),
        )  # fmt: skip


def _driver(path: Path) -> str:
    return "host_device" if stat.S_ISBLK(path.stat().st_mode) else "file"


def _zeros(fd: int, start: int, stop: int) -> bool:
    """Whether all is zero; holes are."""
    blank = bytes(_CHUNK)
    while start < stop:
        try:
            start = os.lseek(fd, start, os.SEEK_DATA)
        except OSError:
            return True
        piece = os.pread(fd, min(_CHUNK, stop - start), start)
        if piece != blank[: len(piece)]:
            return False
        start += len(piece)
    return True
