"""LUKS headers made and tried by cryptsetup. Only files that we have just made get a header."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from agent.copying.errors import translated
from agent.host.run import run
from agent.luks import header
from agent.luks.errors import ConversionFailed, FormatRefused, TargetInUse, WrongSecret
from agent.luks.model import Format, MiB, Secret, device_bytes, header_bytes, passphrase
from agent.luks.window import whole_file

TIMEOUT_S = 120.0
CIPHER = "aes-xts-plain64"
_NO_PERMISSION = 2
_SECTOR = 512


def fresh(path: Path, size: int) -> int:
    """Open a half-made volume's file anew, empty and `size` bytes long; returns the descriptor. Blocking.

    Whatever an earlier, killed run left in it is gone. Raises TargetInUse when it is no regular file of its own.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as failure:
        raise TargetInUse from failure
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
            raise TargetInUse
        os.ftruncate(fd, 0)
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_format(fmt: Format) -> None:
    """Refuse a volume type's encryption that could not be read back by our own rules."""
    if fmt.cipher != CIPHER:
        raise FormatRefused(reason=f"the cipher is not {CIPHER}")
    if fmt.key_size not in (256, 512):
        raise FormatRefused(reason="the key size is neither 256 nor 512")


async def format_header(
    target_fd: int,
    fmt: Format,
    secret: Secret,
    *,
    iterations: int,
    volume_key: bytes | None = None,
    payload_there: bool = False,
    lock_fd: int | None = None,
) -> None:
    """Write a LUKS header with one PBKDF2 key slot; the payload begins at `header_bytes(fmt)`, in sectors of 512.

    The file must be empty, or with `payload_there` at least the place of the header. `volume_key` is the master
    key (made by cryptsetup when None). Raises TargetInUse, FormatRefused, BadSecret, DestinationFull, ConversionFailed.
    """
    check_format(fmt)
    await asyncio.to_thread(_must_be_empty, target_fd, header_bytes(fmt) if payload_there else None)
    await asyncio.to_thread(_make_room, target_fd, header_bytes(fmt))
    argv = ["cryptsetup", "luksFormat", "--batch-mode", "--type", fmt.format, "--hash", "sha256"]
    argv += ["--cipher", fmt.cipher, "--key-size", str(fmt.key_size), "--offset", str(header_bytes(fmt) // _SECTOR)]
    argv += ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", str(iterations), "--key-file", "{secret:key}"]
    secrets = {"key": passphrase(secret)}
    if fmt.format == "luks2":
        # Larger sectors would show as a larger block size, and an image's partition table would not be found.
        argv += ["--sector-size", str(_SECTOR), "--disable-locks"]
    if volume_key is not None:
        argv += ["--volume-key-file", "{secret:volume}"]
        secrets["volume"] = volume_key
    argv.append(f"/dev/fd/{target_fd}")
    await run(argv, timeout=TIMEOUT_S, secrets=secrets, pass_fds=[target_fd], lock_fd=lock_fd)
    made = await asyncio.to_thread(lambda: header.parse(whole_file(target_fd)))
    if (made.payload_offset, made.key_bytes * 8, made.sector_size) != (header_bytes(fmt), fmt.key_size, _SECTOR):
        raise ConversionFailed(reason="cryptsetup made another header than asked for")


async def make_blank(
    path: Path, usable: int, fmt: Format, secret: Secret, *, iterations: int, lock_fd: int | None = None
) -> None:
    """Turn a half-made file into an encrypted volume without content, `usable` bytes inside; durable on return.

    What is read from it before it was written is random. Raises as `fresh` and `format_header`.
    """
    check_format(fmt)
    fd = await asyncio.to_thread(fresh, path, device_bytes(usable, fmt))
    try:
        await format_header(fd, fmt, secret, iterations=iterations, lock_fd=lock_fd)
        await asyncio.to_thread(sync, fd)
    finally:
        os.close(fd)


def sync(fd: int) -> None:
    """Make what was written durable. DestinationFull and its kin. Blocking."""
    try:
        os.fsync(fd)
    except OSError as failure:
        raise translated(failure, "destination") from failure


def _make_room(fd: int, count: int) -> None:
    """Set the header's place aside: a tool would only say that it could not write there, not why."""
    try:
        os.posix_fallocate(fd, 0, count)
    except OSError as failure:
        if failure.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
            raise translated(failure, "destination") from failure


def _must_be_empty(fd: int, length: int | None) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise TargetInUse
    try:
        first = os.lseek(fd, 0, os.SEEK_DATA)
    except OSError as failure:
        if failure.errno == errno.ENXIO:
            return
        raise
    if length is not None and (first >= length or not any(_chunks(fd, length))):
        return
    raise TargetInUse


def _chunks(fd: int, length: int) -> Iterator[bytes]:
    for at in range(0, length, MiB):
        yield os.pread(fd, min(MiB, length - at), at).strip(b"\0")


async def verify_opens(path: Path, secret: Secret, *, what: str = "the volume", lock_fd: int | None = None) -> None:
    """Check that the secret opens the LUKS header of `path` (file or device); raises WrongSecret, ToolFailed."""
    fd = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    argv = ["cryptsetup", "open", "--test-passphrase", "--batch-mode", "--disable-locks", "--type", "luks"]
    argv += ["--readonly", "--key-file", "{secret:key}", f"/dev/fd/{fd}"]
    try:
        done = await run(
            argv,
            timeout=TIMEOUT_S,
            ok=(0, _NO_PERMISSION),
            secrets={"key": passphrase(secret)},
            pass_fds=[fd],
            lock_fd=lock_fd,
        )
    finally:
        os.close(fd)
    if done.returncode == _NO_PERMISSION:
        raise WrongSecret(what=what)
