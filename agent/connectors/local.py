"""The local connector: a volume of this host becomes a device, decrypted on top where dm-crypt is: a file by a loop
device, a logical volume by a linear one (`local_volume`).

What is attached is read from the kernel each time (a device is ours by its identifier, the attachment's id), so a
restart forgets nothing. Attach and detach may be repeated and pick up where they were interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.base.errors import BrickyardError
from agent.base.ids import is_id
from agent.connectors import local_volume
from agent.connectors.errors import DetachIncomplete, DeviceMismatch, DeviceNotReady, NotAttached
from agent.host import sysfs, udev
from agent.host.lvm import ATTACHED_PREFIX
from agent.privsep import block, crypt, mapper
from agent.privsep.checks import LOOP_NAME_PREFIX
from agent.privsep.client import call, mode
from agent.privsep.errors import DeviceHeld
from agent.privsep.waiting import patiently

DEADLINE = 10.0
_UDEV_PROBES = 5.0
_KERNEL_DEADLINE = 2.0  # a container may never hear the kernel; sysfs, read next, says the same


@dataclass(frozen=True, slots=True)
class LocalDevice:
    """`device` is for the holder; `raw_device` the loop below; `raw`: encrypted, but not opened here. Bytes."""

    attachment_id: str
    device: str
    raw_device: str
    raw: bool
    diskseq: int | None
    size: int
    raw_size: int
    read_only: bool
    backing_file: str


async def attach(
    path: Path,
    attachment_id: str,
    size: int,
    read_only: bool = False,
    *,
    encrypted: bool = False,
    passphrase: bytes | None = None,
    deadline: float = DEADLINE,
) -> LocalDevice:
    """Attach the volume's file of `size` bytes. Encrypted without dm-crypt or passphrase: the raw device, `raw`.

    DeviceMismatch, DeviceNotReady, DeviceForeign, VerbRefused, WrongKey, PrivilegeUnavailable, KernelRefused.
    """
    logical = local_volume.named(path)
    if logical is not None:
        made = await local_volume.attach(*logical, attachment_id, size, read_only)
        return await _opened(_of_volume(made), f"/dev/{made['name']}", made["created"], encrypted, passphrase)
    real = _real(path)
    actual = _size(real)
    if actual != size:
        raise DeviceMismatch(device=real, attachment=attachment_id, reason=f"its file has {actual} bytes, not {size}")
    async with udev.subscribed() as events:
        made = await call(block.loop_attach, real, read_only, attachment_id)
        try:
            if made["created"]:
                await _ready(events, made, deadline)
            device = await verify(path, attachment_id, size, read_only)
        except BrickyardError:
            await _undo(attachment_id, made["created"])
            raise
    return await _opened(device, str(made["device"]), made["created"], encrypted, passphrase)


async def _opened(
    device: LocalDevice, below: str, created: bool, encrypted: bool, passphrase: bytes | None
) -> LocalDevice:
    """Decrypted on top where that is possible; else `raw` says that it is not."""
    ident = device.attachment_id
    if encrypted and passphrase is not None and mapper.dm_crypt_available():
        try:
            opened = await call(crypt.crypt_open, below, device.diskseq, ident, passphrase, device.read_only)
        except BrickyardError:
            await _undo(ident, created)
            raise
        return _with_mapper(device, str(opened["device"]), int(opened["size"]))
    return replace(device, raw=encrypted and device.device == device.raw_device)


async def _undo(attachment_id: str, created: bool) -> None:
    if created:
        with contextlib.suppress(BrickyardError):
            await detach(attachment_id)


async def verify(path: Path, attachment_id: str, size: int, read_only: bool = False) -> LocalDevice:
    """The attachment's device when sysfs shows the right file, size, mode and DISKSEQ. NotAttached, DeviceMismatch."""
    loop = await _ours(attachment_id)
    if loop is None:
        raise NotAttached(noun="attachment", id=attachment_id, attachment=attachment_id)
    seen = sysfs.loop_device(loop["number"])
    wanted = (_identity(_real(path)), size, loop["diskseq"], read_only)
    # The path that sysfs tells is no proof: after a restart of the unit it may be that of mounts which are gone.
    file = (loop["file_device"], loop["file_inode"])
    found = None if seen is None else (file, seen.size, seen.diskseq or loop["diskseq"], seen.read_only)
    if found != wanted:
        raise DeviceMismatch(
            device=loop["device"],
            attachment=attachment_id,
            reason=f"file, size, DISKSEQ, read-only are {found}, wanted {wanted}",
        )
    return replace(_device(loop), backing_file=_real(path))


async def current() -> tuple[LocalDevice, ...]:
    """Every attachment that the kernel holds for us, whoever asked; `raw` is not known here and False."""
    loops = tuple(_device(loop) for loop in await _listed())
    return loops + tuple(_of_volume(made) for made in await local_volume.listed())


async def detach(attachment_id: str, *, deadline: float = DEADLINE, force: bool = False) -> bool:
    """Holders, flush, dm-crypt, loop, each verified; False when nothing was attached.

    DetachIncomplete lists what is left and why; a refused detach leaves the device usable. With `force` holders are cut
    off: what they read and write fails from then on, and what they have open goes when they close it.
    """
    gone = False
    for cut in (_cut_opened, _cut_below) if force else ():
        try:
            return await _detached(attachment_id, deadline) or gone
        except DetachIncomplete:
            gone |= await cut(attachment_id, deadline)
    return await _detached(attachment_id, deadline) or gone


async def _cut_opened(attachment_id: str, deadline: float) -> bool:
    there = sysfs.mapper_device(LOOP_NAME_PREFIX + attachment_id) is not None
    return there and await call(crypt.crypt_cut, attachment_id)


async def _cut_below(attachment_id: str, deadline: float) -> bool:
    loop = await _ours(attachment_id)
    if loop is None:
        return await local_volume.cut(attachment_id)
    end = asyncio.get_running_loop().time() + deadline
    return await patiently(lambda: call(block.loop_cut, loop["number"], loop["diskseq"], attachment_id), end)


async def _detached(attachment_id: str, deadline: float) -> bool:
    loop = await _ours(attachment_id)
    mapper = LOOP_NAME_PREFIX + attachment_id
    try:
        closed = sysfs.mapper_device(mapper) is not None and await call(crypt.crypt_close, attachment_id)
        if local_volume.there(attachment_id):
            return await local_volume.detach(attachment_id)
        if loop is None:
            return closed
        await call(block.loop_flush, loop["number"], loop["diskseq"], attachment_id)
        await _unbind(loop, attachment_id, deadline)
    except BrickyardError as error:
        left = await _left(attachment_id)
        if not left:
            return True
        raise DetachIncomplete(attachment=attachment_id, left=", ".join(left), reason=str(error)) from error
    left = await _left(attachment_id)
    if left:
        raise DetachIncomplete(attachment=attachment_id, left=", ".join(left), reason="the kernel still shows it")
    return True


async def resize(attachment_id: str, size: int, passphrase: bytes | None = None) -> LocalDevice:
    """Let the device follow its grown file of `size` bytes. NotAttached, DeviceMismatch, WrongKey, KernelRefused."""
    if local_volume.there(attachment_id):
        return await _volume_resized(attachment_id, size, passphrase)
    loop = await _ours(attachment_id)
    if loop is None:
        raise NotAttached(noun="attachment", id=attachment_id, attachment=attachment_id)
    now = await call(block.loop_resize, loop["number"], loop["diskseq"], attachment_id)
    if now != size:
        raise DeviceMismatch(
            device=loop["device"], attachment=attachment_id, reason=f"it has {now} bytes after the resize, not {size}"
        )
    await _crypt_resized(attachment_id, passphrase)
    return _device({**loop, "size": now})


async def _volume_resized(attachment_id: str, size: int, passphrase: bytes | None) -> LocalDevice:
    await local_volume.resize(attachment_id, size)
    await _crypt_resized(attachment_id, passphrase)
    found = next((one for one in await current() if one.attachment_id == attachment_id), None)
    if found is None:
        raise NotAttached(noun="attachment", id=attachment_id, attachment=attachment_id)
    return found


async def _crypt_resized(attachment_id: str, passphrase: bytes | None) -> None:
    if passphrase is not None and sysfs.mapper_device(LOOP_NAME_PREFIX + attachment_id) is not None:
        await call(crypt.crypt_resize, attachment_id, passphrase)


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode, which is how the kernel knows the file of a loop device."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _size(path: str) -> int | None:
    try:
        return Path(path).stat().st_size
    except OSError:
        return None


async def _ready(events: udev.Events, made: dict[str, Any], deadline: float) -> None:
    name = str(made["device"]).removeprefix("/dev/")
    diskseq = made["diskseq"]

    def ours(event: udev.Event) -> bool:
        return event.name == name and (diskseq is None or event.diskseq in {None, diskseq})

    # With udevd, its rules must be done and its links made.
    patience = deadline if events.udevd else min(deadline, _KERNEL_DEADLINE)
    if await events.wait(ours, patience) is None and events.udevd:
        raise DeviceNotReady(device=made["device"], seconds=deadline, reason="udev sent no event of this binding")


async def _unbind(loop: dict[str, Any], attachment_id: str, deadline: float) -> None:
    """Where udevd runs it may have the device open for a moment: then its next event says when to try again."""
    name = str(loop["device"]).removeprefix("/dev/")
    clock = asyncio.get_running_loop().time
    end = clock() + min(deadline, _UDEV_PROBES)
    async with udev.subscribed() as events:
        while True:
            try:
                await call(block.loop_detach, loop["number"], loop["diskseq"], attachment_id)
            except DeviceHeld:
                if sysfs.users_of(name) or not events.udevd or clock() >= end:
                    raise
                await events.wait(lambda event: event.name == name, end - clock())
            else:
                return


async def _listed() -> list[dict[str, Any]]:
    """Our loop devices. An agent without privileges can say "none" only where no volume's file is bound at all."""
    if mode() == "none" and not any(is_id(loop.file_name) for loop in sysfs.loop_devices()):
        return []
    return list(await call(block.loop_list))


async def _ours(attachment_id: str) -> dict[str, Any] | None:
    return next((loop for loop in await _listed() if loop["attachment_id"] == attachment_id), None)


async def _left(attachment_id: str) -> list[str]:
    mapper = sysfs.mapper_device(LOOP_NAME_PREFIX + attachment_id)
    loop = await _ours(attachment_id)
    named = [(f"/dev/mapper/{mapper.title}", mapper.name)] if mapper else []
    if loop is not None:
        named.append((loop["device"], str(loop["device"]).removeprefix("/dev/")))
    volume = sysfs.mapper_device(ATTACHED_PREFIX + attachment_id)
    if volume is not None:
        named.append((f"/dev/mapper/{volume.title}", volume.name))
    return [f"{device} ({', '.join(sysfs.users_of(name)) or 'no visible user'})" for device, name in named]


def _device(loop: dict[str, Any]) -> LocalDevice:
    plain = LocalDevice(
        attachment_id=loop["attachment_id"],
        device=loop["device"],
        raw_device=loop["device"],
        raw=False,
        diskseq=loop["diskseq"],
        size=loop["size"],
        raw_size=loop["size"],
        read_only=loop["read_only"],
        backing_file=loop["backing_file"],
    )
    return _on_top(plain)


def _of_volume(made: dict[str, Any]) -> LocalDevice:
    return _on_top(
        LocalDevice(
            attachment_id=made["attachment_id"],
            device=made["device"],
            raw_device=made["device"],
            raw=False,
            diskseq=made["diskseq"],
            size=made["size"],
            raw_size=made["size"],
            read_only=made["read_only"],
            backing_file=f"/dev/mapper/{made['volume']}",
        )
    )


def _on_top(plain: LocalDevice) -> LocalDevice:
    mapper = sysfs.mapper_device(LOOP_NAME_PREFIX + plain.attachment_id)
    return plain if mapper is None else _with_mapper(plain, f"/dev/mapper/{mapper.title}", mapper.size)


def _with_mapper(device: LocalDevice, path: str, size: int) -> LocalDevice:
    return replace(device, device=path, size=size)
