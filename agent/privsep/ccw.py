"""Verbs on channel-attached devices of IBM Z: take off the ignore list, on and off line, format a DASD.

Only for devices that root's limits name: another one may be the disk that this system runs from.
"""

from __future__ import annotations

import contextlib
import errno

from agent.host import ccw, sysfs
from agent.host.kernel import current
from agent.privsep import checks, dasdfmt
from agent.privsep.contexts import channel, privileged
from agent.privsep.errors import DeviceForeign, DeviceHeld, KernelRefused, NotOnThisPlatform, VerbRefused


@privileged(channel)
def ccw_release(bus_id: str) -> bool:
    """Take a device off the kernel's ignore list, until the kernel has looked for it; False when it was not on it."""
    checked = _allowed(bus_id)
    if not ccw.is_ignored(checked):
        return False
    _write("take from the ignore list", checked, "proc", f"free {checked}")
    with contextlib.suppress(OSError):  # older than the kernels that offer to wait
        current().write(current().proc / "cio_settle", "1")
    return True


@privileged(channel)
def ccw_ignore(bus_id: str) -> None:
    """Put a device that is offline back on the ignore list, and let the kernel forget it."""
    checked = _allowed(bus_id)
    _write("put on the ignore list", checked, "proc", f"add {checked}")
    found = ccw.device(checked)
    if found is not None and not found.online:
        _write("let go of", checked, "proc", "purge")


@privileged(channel)
def ccw_online(bus_id: str, read_only: bool) -> bool:
    """Set a device online; False when it was. A DASD's mode is set before anyone can write to it."""
    checked = _allowed(bus_id)
    checks.flag(read_only, "read_only")
    found = _device(checked)
    dasd = ccw.dasd(checked)
    if found.online:
        if dasd is not None and dasd.read_only != read_only:
            raise DeviceForeign(device=checked, reason="it is online in another mode")
        return False
    if dasd is not None:
        _write("set the mode of", checked, "readonly", "1" if read_only else "0")
    _write("set online", checked, "online", "1")
    return True


@privileged(channel)
def ccw_offline(bus_id: str) -> bool:
    """Set a device offline; False when it was. DeviceHeld (nothing was changed) while anyone has it open."""
    checked = _allowed(bus_id)
    found = ccw.device(checked)
    if found is None or not found.online:
        return False
    dasd = ccw.dasd(checked)
    if dasd is not None and dasd.disk:
        users = sysfs.users_of(dasd.disk, current().sys, current().proc)
        if users:
            raise DeviceHeld(device=dasd.device, holders=", ".join(users))
    # safe_offline writes out what is queued, which a device that is gone can never do.
    attribute = "safe_offline" if dasd is not None and found.availability == ccw.GOOD else "online"
    _write("set offline", checked, attribute, "1" if attribute == "safe_offline" else "0")
    return True


@privileged(channel)
def dasd_format(bus_id: str, uid: str, layout: str) -> None:
    """Begin to format a DASD that the kernel calls unformatted, and none else; `dasd_format_wait` tells the rest."""
    checked = _allowed(bus_id)
    if layout not in dasdfmt.LAYOUTS:
        raise VerbRefused(reason="the layout is not one of " + ", ".join(dasdfmt.LAYOUTS))
    if dasdfmt.running(checked):
        return
    found = ccw.dasd(checked)
    if found is None or not found.disk or found.uid != uid:
        raise DeviceForeign(device=checked, reason=f"it is {found.uid if found else 'no DASD'}, not {uid!r:.100}")
    if found.status != "unformatted" or found.size or found.read_only:
        raise DeviceForeign(
            device=checked, reason=f"only an unformatted one is formatted; its status is {found.status}"
        )
    dasdfmt.start(checked, found.device, layout)


@privileged(channel)
def dasd_format_wait(bus_id: str, after: int, seconds: int) -> dict[str, int | str | bool]:
    """How far the formatting is, once `done` cylinders exceed `after` or `seconds` are over: {running, done, total,
    error}."""
    checked = _allowed(bus_id)
    return dasdfmt.wait(checked, checks.number(after, "cylinder"), checks.number(seconds, "seconds", 61))


def _allowed(bus_id: object) -> str:
    if not ccw.is_there():
        raise NotOnThisPlatform(device="a channel-attached device")
    return checks.channel_device(bus_id)


def _device(bus_id: str) -> ccw.CcwDevice:
    found = ccw.device(bus_id)
    if found is None:
        raise DeviceForeign(device=bus_id, reason="there is no such device, or it is on the ignore list")
    return found


def _write(action: str, bus_id: str, attribute: str, value: str) -> None:
    kernel = current()
    path = kernel.proc / "cio_ignore" if attribute == "proc" else ccw.folder(bus_id) / attribute
    try:
        kernel.write(path, value)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise DeviceHeld(device=bus_id, holders="a process has it open") from error
        raise KernelRefused(action=action, device=bus_id, reason=str(error)) from error
