"""Verbs on loop devices. A device is ours when its identifier in the kernel is `brickyard-<attachment id>`, or
`byexport-<volume id>` for what is offered to other hosts (`purpose` export).

Each verb looks first and treats "already so" as success; arguments are trusted no more than the network's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from typing import Any

from agent.host import mounts, sysfs
from agent.privsep import checks, loopctl
from agent.privsep.contexts import block, privileged
from agent.privsep.errors import DeviceForeign, DeviceHeld, KernelRefused, NoLoopDevice

_TRIES = 64
# Their client takes a loop device's flag for direct I/O, and answers EINVAL to what then comes (Linux 6.1).
_NO_DIRECT_IO = frozenset({"cifs", "smb3"})
_NOBODY = "00000000-0000-0000-0000-000000000000"
# Two calls for one attachment must end in one device; and a device that one thread has open only to look at it
# would seem in use to another thread that unbinds it.
_devices = threading.Lock()


@privileged(block)
def loop_attach(path: str, read_only: bool, attachment_id: str, purpose: str = "attachment") -> dict[str, Any]:
    """Bind a volume's file: {number, device, diskseq, size (bytes), read_only, created}.

    VerbRefused, DeviceForeign (the attachment has another file), NoLoopDevice, KernelRefused.
    """
    checks.flag(read_only, "read_only")
    name = checks.loop_name(purpose, attachment_id)
    backing = checks.open_volume(path, read_only)
    try:
        with _devices:
            return _existing(backing, name, path, read_only) or _bind(backing, name, read_only)
    finally:
        os.close(backing)


@privileged(block)
def loop_list(purpose: str = "attachment") -> list[dict[str, Any]]:
    """Our bound loop devices: {number, device, diskseq, size, read_only, file_device, file_inode, ...}.

    `attachment_id` is what each is bound for: of purpose export, the volume.
    """
    found = []
    prefix = checks.loop_name(purpose, _NOBODY).removesuffix(_NOBODY)
    with _devices:
        for loop in sysfs.loop_devices():
            try:
                fd = loopctl.open_device(loop.number, os.O_RDONLY)
            except OSError:
                continue
            try:
                status = loopctl.status(fd)
                if status is not None and status.name.startswith(prefix):
                    ident = status.name.removeprefix(prefix)
                    told = _told(fd, loop.number, status, created=False)
                    found.append({**told, "attachment_id": ident, "backing_file": loop.backing_file})
            finally:
                os.close(fd)
    return found


@privileged(block)
def loop_flush(number: int, diskseq: int | None, attachment_id: str, purpose: str = "attachment") -> bool:
    """Write what the page cache holds down to the file; False when it is not bound to this attachment."""
    fd = _open_ours(number, diskseq, checks.loop_name(purpose, attachment_id))
    if fd is None:
        return False
    try:
        os.fsync(fd)
    except OSError as error:
        raise KernelRefused(action="flush", device=f"/dev/loop{number}", reason=str(error)) from error
    finally:
        os.close(fd)
    return True


@privileged(block)
def loop_detach(number: int, diskseq: int | None, attachment_id: str, purpose: str = "attachment") -> bool:
    """Flush and unbind; False when there was nothing to do. DeviceHeld (nothing was changed), KernelRefused."""
    device = f"/dev/loop{checks.number(number, 'loop number')}"
    with _devices:
        fd = _open_ours(number, diskseq, checks.loop_name(purpose, attachment_id))
        if fd is None:
            return False
        try:
            holders = sysfs.users_of(f"loop{number}")
            if holders:
                raise DeviceHeld(device=device, holders=", ".join(holders))
            _claim(device)
            os.fsync(fd)
            cleared = loopctl.clear(fd)
        except OSError as error:
            raise KernelRefused(action="flush and unbind", device=device, reason=str(error)) from error
        finally:
            os.close(fd)
    if not cleared:
        raise DeviceHeld(device=device, holders="a process has it open")
    return True


@privileged(block)
def loop_cut(number: int, diskseq: int | None, attachment_id: str) -> bool:
    """Flush, then cut whoever has the device open off from the file; False when there was nothing to do.

    What they read and write from now on fails. The device goes with the last of them. KernelRefused, DeviceHeld.
    """
    device = f"/dev/loop{checks.number(number, 'loop number')}"
    with _devices:
        fd = _open_ours(number, diskseq, checks.loop_name("attachment", attachment_id))
        if fd is None:
            return False
        try:
            with contextlib.suppress(OSError):  # what can not be written now never will be
                os.fsync(fd)
            loopctl.cut(fd, checks.cut_name(attachment_id))
            left = loopctl.size(fd)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                raise DeviceHeld(device=device, holders="somebody who goes on writing to it") from error
            raise KernelRefused(action="cut off", device=device, reason=str(error)) from error
        finally:
            os.close(fd)
    if left:
        raise KernelRefused(action="cut off", device=device, reason=f"it still shows {left} bytes")
    return True


@privileged(block)
def loop_resize(number: int, diskseq: int | None, attachment_id: str, purpose: str = "attachment") -> int:
    """Let the device follow its file's size; returns bytes. DeviceForeign when it is not this attachment's."""
    device = f"/dev/loop{checks.number(number, 'loop number')}"
    with _devices:
        fd = _open_ours(number, diskseq, checks.loop_name(purpose, attachment_id))
        if fd is None:
            raise DeviceForeign(device=device, reason="it is bound to something else, or to nothing")
        try:
            loopctl.reread_size(fd)
            return loopctl.size(fd)
        except OSError as error:
            raise KernelRefused(action="resize", device=device, reason=str(error)) from error
        finally:
            os.close(fd)


def _existing(backing: int, name: str, path: str, read_only: bool) -> dict[str, Any] | None:
    wanted = os.fstat(backing)
    for loop in sysfs.loop_devices():
        try:
            fd = loopctl.open_device(loop.number, os.O_RDONLY)
        except OSError:
            continue
        try:
            status = loopctl.status(fd)
            if status is None or status.name != name:
                continue
            if (status.device, status.inode) != (wanted.st_dev, wanted.st_ino):
                raise DeviceForeign(device=f"/dev/{loop.name}", reason=f"it holds {loop.backing_file}, not {path}")
            if bool(status.flags & loopctl.READ_ONLY) != read_only:
                raise DeviceForeign(device=f"/dev/{loop.name}", reason="it is attached in another mode")
            return _told(fd, loop.number, status, created=False)
        finally:
            os.close(fd)
    return None


def _bind(backing: int, name: str, read_only: bool) -> dict[str, Any]:
    flags = loopctl.READ_ONLY if read_only else 0
    if mounts.type_of(backing) not in _NO_DIRECT_IO:
        flags |= loopctl.DIRECT_IO
    for _ in range(_TRIES):
        try:
            number = loopctl.free_number()
            fd = loopctl.open_device(number)
        except OSError as error:
            raise NoLoopDevice(reason=str(error)) from error
        try:
            loopctl.configure(fd, backing, name, flags)
            status = loopctl.status(fd)
            if status is not None:
                return _told(fd, number, status, created=True)
        except OSError as error:
            # EBUSY: another process took the free device in between. EINVAL: no direct I/O on this file system.
            if error.errno == errno.EINVAL and flags & loopctl.DIRECT_IO:
                flags &= ~loopctl.DIRECT_IO
            elif error.errno != errno.EBUSY:
                raise KernelRefused(action="bind", device=f"/dev/loop{number}", reason=str(error)) from error
        finally:
            os.close(fd)
    raise NoLoopDevice(reason=f"{_TRIES} free ones were each taken by others")


def _told(fd: int, number: int, status: loopctl.Status, *, created: bool) -> dict[str, Any]:
    return {
        "number": number,
        "device": f"/dev/loop{number}",
        "diskseq": loopctl.diskseq(fd),
        "size": loopctl.size(fd),
        "read_only": bool(status.flags & loopctl.READ_ONLY),
        "file_device": status.device,
        "file_inode": status.inode,
        "created": created,
    }


def _open_ours(number: object, diskseq: object, name: str) -> int | None:
    """A descriptor of the device when it is bound for `name`; holding it keeps the binding in place."""
    checked, wanted = checks.number(number, "loop number"), checks.sequence(diskseq)
    try:
        fd = loopctl.open_device(checked)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENXIO}:
            return None
        raise KernelRefused(action="open", device=f"/dev/loop{checked}", reason=str(error)) from error
    status = loopctl.status(fd)
    if status is not None and status.name == name and wanted in {None, loopctl.diskseq(fd)}:
        return fd
    os.close(fd)
    return None


def _claim(device: str) -> None:
    """An exclusive open fails for mounts that another mount namespace hides from us, too. DeviceHeld."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise DeviceHeld(device=device, holders="the kernel says busy (a mount in another namespace?)") from error
        raise KernelRefused(action="claim", device=device, reason=str(error)) from error
