"""Verbs on FCP devices of IBM Z: look for ports and LUNs, add and remove units, drop the disk of a path.

Only on FCP devices that root's limits name; names are fixed patterns, so no other file can be written.
"""

from __future__ import annotations

import errno
from pathlib import Path

from agent.host import ccw, fcp, scsi
from agent.host.kernel import current
from agent.privsep import checks, scsi_writes
from agent.privsep.contexts import channel, privileged
from agent.privsep.errors import DeviceForeign, KernelRefused, NotOnThisPlatform

_THERE = {errno.EEXIST}


@privileged(channel)
def zfcp_port_rescan(bus_id: str) -> None:
    """Let an FCP device look for its ports again."""
    scsi_writes.write(_adapter(bus_id) / "port_rescan", "1", "look for ports at", bus_id)


@privileged(channel)
def zfcp_unit_add(bus_id: str, wwpn: str, lun: str) -> bool:
    """Add a unit by hand; False when it is there already. KernelRefused."""
    port = _adapter(bus_id) / checks.hex64(wwpn, "port name")
    return scsi_writes.write(port / "unit_add", checks.hex64(lun, "LUN"), "add a unit to", bus_id, fine=_THERE)


@privileged(channel)
def zfcp_unit_remove(bus_id: str, wwpn: str, lun: str) -> bool:
    """Remove a unit; False when it is not there. DeviceHeld while its disk is in use."""
    port = _adapter(bus_id) / checks.hex64(wwpn, "port name")
    checked = checks.hex64(lun, "LUN")
    if not (port / checked).is_dir():
        return False
    return scsi_writes.write(port / "unit_remove", checked, "remove a unit from", bus_id, fine=scsi_writes.GONE)


@privileged(channel)
def zfcp_scan(bus_id: str, wwpn: str, lun: str) -> None:
    """Let the kernel look at exactly one LUN of a port, where units are not added by hand. KernelRefused."""
    _adapter(bus_id)
    port, checked = checks.hex64(wwpn, "port name"), checks.hex64(lun, "LUN")
    found = fcp.scan_place(bus_id, port)
    if found is None:
        raise KernelRefused(action="look at a LUN of", device=bus_id, reason=f"port {port} has no target yet")
    host, target = found
    place = current().sys / "class" / "scsi_host" / host / "scan"
    scsi_writes.write(place, f"0 {target} {fcp.scsi_lun(checked)}", "look at a LUN of", bus_id)


@privileged(channel)
def zfcp_disk_rescan(bus_id: str, wwpn: str, lun: str) -> None:
    """Let the kernel read size and identity of the disk of one path anew."""
    scsi_writes.rescan(_disks(bus_id, wwpn, lun), bus_id)


@privileged(channel)
def zfcp_disk_delete(bus_id: str, wwpn: str, lun: str) -> bool:
    """Flush the disk of one path, if it answers, and let the kernel drop it; False when there is none. DeviceHeld."""
    return scsi_writes.delete(_disks(bus_id, wwpn, lun), bus_id)


@privileged(channel)
def zfcp_disk_cut(bus_id: str, wwpn: str, lun: str) -> bool:
    """Let the kernel drop the disk of one path although somebody uses it; False when there is none. VerbRefused."""
    return scsi_writes.cut(_disks(bus_id, wwpn, lun), bus_id)


def _disks(bus_id: object, wwpn: object, lun: object) -> tuple[scsi.Disk, ...]:
    checked = _adapter(bus_id).name
    return fcp.disks(checked, checks.hex64(wwpn, "port name"), checks.hex64(lun, "LUN"))


def _adapter(bus_id: object) -> Path:
    if not ccw.is_there():
        raise NotOnThisPlatform(device="an FCP device")
    checked = checks.channel_device(bus_id)
    folder = fcp.driver_folder() / checked
    if not folder.is_dir():
        raise DeviceForeign(device=checked, reason="it is no FCP device of this host")
    return folder
