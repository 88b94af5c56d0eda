"""The key slots of a volume's own header: added, removed, all but one replaced; the header kept aside, or destroyed.

Whoever calls holds the volume's lock. Each change can be killed between any two writes: what is left opens with the
old key, the new one or both, and the same call again finishes it. Of LUKS2's two copies of the metadata the newer
one that is whole counts, and both are written.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from agent.base.faults import declare, fault_point
from agent.copying.extents import extents
from agent.luks import header, keyslot, luks1, luks2, write1, write2
from agent.luks.details import Header, KeySlot
from agent.luks.errors import (
    ForeignHeader,
    HeaderRefused,
    KeyArea,
    LastSlot,
    MetadataSize,
    NoFreeSlot,
    NotLuks,
    Truncated,
    WrongSecret,
)
from agent.luks.model import DEFAULT_LIMITS, MiB, Secret, passphrase
from agent.luks.stored import Put, put
from agent.luks.unlock import Opened, unlock
from agent.luks.window import Window, whole_file

declare("agent.luks.key-added", "agent.luks.key-dropped")

_WHAT = "the volume"
# No header reaches further: it is what LUKS2 has before its payload.
_HEADER_BYTES = 16 * MiB


@dataclass(frozen=True, slots=True)
class _Volume:
    """An opened volume's file or device, its header, and the metadata (LUKS2) that the header was read from."""

    fd: int
    window: Window
    header: Header
    metadata: luks2.Metadata | None


def add(fd: int, old: Secret, new: Secret, *, iterations: int) -> int:
    """Let `new` open the volume too; its slot, which is an old one when it opens already. Blocking, takes seconds.

    Raises WrongSecret when `old` does not open it, NoFreeSlot, BadSecret, a HeaderRefused subclass.
    """
    volume = _read(fd)
    there = _opened(volume, new)
    return there.slot.index if there else _add(volume, _open(volume, old), new, iterations).index


def remove(fd: int, secret: Secret) -> None:
    """Destroy the slots that `secret` opens; LastSlot when no other would be left. None: already so. Blocking."""
    volume = _read(fd)
    while (there := _opened(volume, secret)) is not None:
        if len(volume.header.slots) == 1:
            raise LastSlot
        _drop(volume, there.slot)
        volume = _read(fd)


def opened_by(fd: int, secret: Secret) -> list[int]:
    """The slots that `remove` would destroy; raises LastSlot as it does. Blocking."""
    volume, found = _read(fd), []
    while (there := _opened(volume, secret)) is not None:
        left = tuple(slot for slot in volume.header.slots if slot.index != there.slot.index)
        if not left:
            raise LastSlot
        found.append(there.slot.index)
        volume = replace(volume, header=replace(volume.header, slots=left))
    return found


def rekey(fd: int, old: Secret, new: Secret, *, iterations: int) -> None:
    """Let `new` alone open the volume: no other slot is left. Blocking, takes seconds.

    The master key stays, so content is not touched: who has seen it can still read the volume. Raises as `add`.
    """
    volume = _read(fd)
    kept = _opened(volume, new)
    if kept is None:
        opened = _open(volume, old)
        spare = next((slot for slot in volume.header.slots if slot.index != opened.slot.index), None)
        if _free(volume) is None and spare is not None:
            _drop(volume, spare)
            volume = _read(fd)
        slot = _add(volume, opened, new, iterations)
        volume = _read(fd)
        kept = _opened(volume, new)
        if kept is None or kept.slot.index != slot.index or kept.master_key != opened.master_key:
            raise KeyArea
        fault_point("agent.luks.key-added")
    for slot in volume.header.slots:
        if slot.index != kept.slot.index:
            _drop(_read(fd), slot)
            fault_point("agent.luks.key-dropped")


def opens_alone(fd: int, secret: Secret) -> bool:
    """Whether `secret` opens the volume and there is no slot for another. Blocking, takes seconds."""
    volume = _read(fd)
    return len(volume.header.slots) == 1 and _opened(volume, secret) is not None


def backup(fd: int) -> bytes:
    """The header with its key slots, as `cryptsetup luksHeaderBackup` keeps it. It opens with the keys of its time."""
    volume = _read(fd)
    length = volume.header.details.payload_offset
    if length > _HEADER_BYTES:
        raise MetadataSize
    return volume.window.exact(0, length)


def restore(fd: int, kept: bytes, *, force: bool = False) -> None:
    """Put a header back that `backup` kept. Blocking; killed in between, the volume opens with no key until it is done.

    Raises as `restorable`.
    """
    restorable(fd, kept, force=force)
    magic = len(header.MAGIC)
    put(fd, Put(0, bytes(magic)))
    put(fd, *(Put(at, kept[at : at + MiB]) for at in range(magic, len(kept), MiB)))
    put(fd, Put(0, kept[:magic]))


def restorable(fd: int, kept: bytes, *, force: bool = False) -> Header | None:
    """The volume's own header, if it is whole, that `restore` would write over.

    Raises a HeaderRefused subclass for what is no whole header, and ForeignHeader when the volume's own header is whole
    and another one's, unless `force`, or when its content begins elsewhere.
    """
    window = whole_file(fd)
    there = _judged(kept, window.length)
    if there.details.payload_offset != len(kept):
        raise ForeignHeader(reason="it is not as long as it says")
    try:
        own = _read(fd).header
    except HeaderRefused:
        own = None
    if own is not None and own.details.payload_offset != len(kept):
        raise ForeignHeader(reason="the volume's content begins elsewhere")
    if own is not None and own.uuid != there.uuid and not force:
        raise ForeignHeader(reason=f"it is {there.uuid}, the volume's {own.uuid}")
    return own


def _judged(kept: bytes, length: int) -> Header:
    """The header as it would stand at the beginning of a volume of `length` bytes."""
    copy = os.memfd_create("header", os.MFD_CLOEXEC)
    try:
        os.write(copy, kept)
        os.ftruncate(copy, max(length, len(kept)))
        return header.read(whole_file(copy))
    finally:
        os.close(copy)


def erase(fd: int) -> bool:
    """Destroy the header of either version, damaged or not, so that nobody opens the content again. Blocking.

    Tells whether there was one. Only what has room on the disk is written to, so it needs none: a full disk is no
    hindrance. Snapshots and clones have headers of their own.
    """
    window = whole_file(fd)
    if window.read(0, 6) != header.MAGIC and window.read(write2.SIZE, 6) != write2.SECOND_MAGIC:
        return False
    ranges = list(extents(fd, 0, min(window.length, _HEADER_BYTES)))
    cuts = [(at, min(at + MiB, end)) for begin, end in ranges for at in range(begin, end, MiB)]
    put(fd, *(Put(at, os.urandom(end - at)) for at, end in cuts))
    return True


def _read(fd: int) -> _Volume:
    window = whole_file(fd)
    if window.read(0, 8) == header.MAGIC + b"\0\1":
        return _Volume(fd, window, luks1.parse(window), None)
    metadata = newest(window)
    return _Volume(fd, window, luks2.checked(metadata, window.length), metadata)


def newest(window: Window) -> luks2.Metadata:
    """The newer of LUKS2's two copies that is whole; raises NotLuks, or what is wrong with the first."""
    found: list[luks2.Metadata] = []
    wrong: Exception = NotLuks()
    for at in (0, *sorted(luks2.SIZES)):
        magic = header.MAGIC if at == 0 else write2.SECOND_MAGIC
        if window.read(at, 8) != magic + b"\0\2":
            continue
        try:
            copy = luks2.metadata(window, DEFAULT_LIMITS, at)
        except (MetadataSize, Truncated) as failure:
            wrong = failure if at == 0 else wrong
            continue
        if at in (0, copy.size):
            found.append(copy)
    if not found:
        raise wrong
    return max(found, key=lambda copy: copy.generation)


def _open(volume: _Volume, secret: Secret) -> Opened:
    return unlock(volume.window, volume.header, passphrase(secret), _WHAT)


def _opened(volume: _Volume, secret: Secret) -> Opened | None:
    try:
        return _open(volume, secret)
    except WrongSecret:
        return None


def _free(volume: _Volume) -> tuple[int, int] | None:
    """A free slot's number and the place of its material."""
    size, like = volume.header.details.key_bytes, volume.header.slots
    used = {slot.index for slot in like}
    if volume.metadata is None:
        return _free_luks1(volume, [index for index in range(luks1.SLOTS) if index not in used])
    every = luks2.slots_of(volume.metadata)
    length = write2.area_bytes(size, keyslot.STRIPES)
    end = luks2.area_end(volume.metadata)
    taken = sorted((slot.start, slot.start + slot.length) for slot in every)
    place = 2 * volume.metadata.size
    for start, stop in taken:
        if start - place >= length:
            break
        place = max(place, stop)
    number = next(index for index in range(luks2.MAX_SLOTS + 1) if index not in {slot.index for slot in every})
    return (number, place) if number < luks2.MAX_SLOTS and place + length <= end else None


def _free_luks1(volume: _Volume, unused: list[int]) -> tuple[int, int] | None:
    """Its slots have fixed places. One that lies upon a slot in use would be destroyed with that: KeyArea."""
    length = keyslot.STRIPES * volume.header.details.key_bytes
    taken = [(slot.material, slot.material + slot.stripes * slot.key_bytes) for slot in volume.header.slots]
    for index in unused:
        start = luks1.place(volume.window, index)
        if all(start + length <= first or last <= start for first, last in taken):
            return index, start
    if unused:
        raise KeyArea
    return None


def _add(volume: _Volume, opened: Opened, new: Secret, iterations: int) -> KeySlot:
    key, free = passphrase(new), _free(volume)
    if free is None:
        raise NoFreeSlot
    details = volume.header.details
    slot = keyslot.new_slot(*free, details.key_bytes, details.cipher, iterations)
    if volume.metadata is None:
        slot = keyslot.with_hash(slot, details.hash)
        write1.store_slot(volume.fd, slot, keyslot.material(slot, opened.master_key, key))
        return slot
    put(volume.fd, Put(slot.material, keyslot.material(slot, opened.master_key, key)))
    _store(volume, volume.metadata, write2.with_slot(volume.metadata.tree, slot))
    return slot


def _drop(volume: _Volume, slot: KeySlot) -> None:
    length = keyslot.material_bytes(slot)
    if volume.metadata is None:
        write1.drop_slot(volume.fd, slot, length)
        return
    put(volume.fd, Put(slot.material, os.urandom(length)))
    _store(volume, volume.metadata, write2.without_slot(volume.metadata.tree, slot.index))


def _store(volume: _Volume, metadata: luks2.Metadata, tree: write2.Tree) -> None:
    write2.store(volume.fd, replace(metadata, generation=metadata.generation + 1, tree=tree))
