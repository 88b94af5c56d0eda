"""Make the header of a new volume, hidden until its payload is there.

A hidden header is whole but for its magic, so nothing opens it: neither cryptsetup, nor qemu, nor a parser of ours.
Who has the secret can take it up again after a kill. Only empty files and devices get a header.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import uuid
from collections.abc import Iterator
from dataclasses import replace

from agent.base import ciphers
from agent.base.files import set_aside
from agent.copying.errors import translated
from agent.luks import header, keyslot, write1, write2
from agent.luks.details import KeySlot
from agent.luks.errors import FormatRefused, HeaderRefused, TargetInUse, WrongSecret
from agent.luks.luks2 import Metadata
from agent.luks.model import Format, MiB, Secret, header_bytes, passphrase
from agent.luks.sectors import SECTOR, sectors
from agent.luks.stored import Put, put
from agent.luks.unlock import Opened, unlock
from agent.luks.window import Window, whole_file

_MAGIC_BYTES = len(header.MAGIC)


def check_format(fmt: Format) -> None:
    """Refuse a volume type's encryption that could not be read back by our own rules."""
    reason = ciphers.refusal(fmt.cipher, fmt.key_size, version=1 if fmt.format == "luks1" else 2)
    if reason is not None:
        raise FormatRefused(reason=reason)


def create(fd: int, fmt: Format, secret: Secret, *, iterations: int, master: bytes | None = None) -> Opened:
    """Write a hidden header with one PBKDF2 slot, and sync it; the payload begins at `header_bytes(fmt)`.

    The place must be empty. The master key is random unless given. Blocking, takes seconds. Raises TargetInUse,
    FormatRefused, BadSecret, DestinationFull and its kin.
    """
    check_format(fmt)
    master = master or secrets.token_bytes(fmt.key_size // 8)
    try:
        sectors(fmt.cipher, master)
    except HeaderRefused:
        raise FormatRefused(reason=f"the libraries of this host lack {fmt.cipher}") from None
    _must_be_empty(fd, header_bytes(fmt))
    _make_room(fd, header_bytes(fmt))
    key = passphrase(secret)
    maker = _luks1 if fmt.format == "luks1" else _luks2
    slot, parts = maker(fmt, master, iterations)
    put(fd, *parts, Put(slot.material, keyslot.material(slot, master, key)))
    return Opened(header.read(_shown(fd)), slot, master)


def take_up(fd: int, fmt: Format, secret: Secret) -> Opened | None:
    """Open the header, hidden or not, that an earlier, killed run left; None when there is none that fits. Blocking."""
    try:
        window = _shown(fd)
        found = header.read(window)
        if found.details.payload_offset != header_bytes(fmt) or found.details.key_bytes * 8 != fmt.key_size:
            return None
        return unlock(window, found, passphrase(secret), "the volume")
    except (HeaderRefused, WrongSecret):
        return None


def reveal(fd: int, fmt: Format) -> None:
    """Write the magic of a hidden header, and sync it. Blocking."""
    if fmt.format == "luks2":
        put(fd, Put(write2.SIZE, write2.SECOND_MAGIC))
    put(fd, Put(0, header.MAGIC))


def _luks1(fmt: Format, master: bytes, iterations: int) -> tuple[KeySlot, list[Put]]:
    size = len(master)
    slot = keyslot.new_slot(0, write1.place(size, keyslot.STRIPES, 0), size, fmt.cipher, iterations)
    digest = keyslot.digest_of(master, write1.DIGEST_BYTES)
    made = write1.head(fmt.cipher, digest, str(uuid.uuid4()), payload=header_bytes(fmt), key_bytes=size)
    at = write1.entry_place(0)
    whole = made[:at] + write1.entry(slot) + made[at + len(write1.entry(slot)) :]
    return slot, [Put(0, _hidden(whole))]


def _luks2(fmt: Format, master: bytes, iterations: int) -> tuple[KeySlot, list[Put]]:
    size = len(master)
    slot = keyslot.new_slot(0, write2.place(size, keyslot.STRIPES, 0), size, fmt.cipher, iterations)
    digest = keyslot.digest_of(master, write2.DIGEST_BYTES)
    # Larger sectors would show as a larger block size, and an image's partition table would not be found.
    tree = write2.with_slot(write2.new_tree(fmt.cipher, digest, header_bytes(fmt), SECTOR), slot)
    first, second = write2.pack(Metadata(write2.SIZE, 1, str(uuid.uuid4()), tree))
    return slot, [Put(0, _hidden(first)), Put(write2.SIZE, _hidden(second))]


def _hidden(made: bytes) -> bytes:
    return bytes(_MAGIC_BYTES) + made[_MAGIC_BYTES:]


def _shown(fd: int) -> Window:
    """The file as it is to be once its magic is there."""
    window = whole_file(fd)
    return window if window.read(0, _MAGIC_BYTES).strip(b"\0") else replace(window, head=header.MAGIC)


def _make_room(fd: int, count: int) -> None:
    """Set the header's place aside, so that a full disk is told before anything else is done."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return
    try:
        set_aside(fd, count)
    except OSError as failure:
        if failure.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
            raise translated(failure, "destination") from failure


def _must_be_empty(fd: int, length: int) -> None:
    """A file without data, or a device whose beginning reads as zeros; anything else keeps what it holds."""
    info = os.fstat(fd)
    if stat.S_ISREG(info.st_mode):
        try:
            os.lseek(fd, 0, os.SEEK_DATA)
        except OSError as failure:
            if failure.errno == errno.ENXIO:
                return
            raise
    elif not stat.S_ISBLK(info.st_mode):
        raise TargetInUse
    if any(chunk.strip(b"\0") for chunk in _chunks(fd, length)):
        raise TargetInUse
    if stat.S_ISREG(info.st_mode) and _data_behind(fd, length):
        raise TargetInUse


def _data_behind(fd: int, length: int) -> bool:
    try:
        os.lseek(fd, length, os.SEEK_DATA)
    except OSError as failure:
        if failure.errno == errno.ENXIO:
            return False
        raise
    return True


def _chunks(fd: int, length: int) -> Iterator[bytes]:
    for at in range(0, length, MiB):
        yield os.pread(fd, min(MiB, length - at), at)
