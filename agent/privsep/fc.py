"""Verbs on plain Fibre Channel adapters: look at one LUN of one port of an array, read its disk anew, drop it.

Only ports of arrays that root's limits name: a host may run from another disk of the same fabric.
"""

from __future__ import annotations

from agent.host import fc, scsi
from agent.host.kernel import current
from agent.privsep import checks, scsi_writes
from agent.privsep.contexts import net, privileged
from agent.privsep.errors import KernelRefused


@privileged(net)
def fc_scan(host: str, wwpn: str, lun: str) -> None:
    """Let the kernel look at exactly one LUN of a port; never at what else the fabric may offer. KernelRefused."""
    place, port, checked = _host(host), checks.array_port(wwpn), checks.hex64(lun, "LUN")
    found = next((one for one in fc.array_ports(place, port) if one.online), None)
    if found is None:
        raise KernelRefused(action="look at a LUN of", device=port, reason=f"{place} does not see that port online")
    _, channel, target, number = found.address(checked).split(":")
    scan = current().sys / "class" / "scsi_host" / place / "scan"
    scsi_writes.write(scan, f"{channel} {target} {number}", "look at a LUN of", port)


@privileged(net)
def fc_disk_rescan(host: str, wwpn: str, lun: str) -> None:
    """Let the kernel read size and identity of the disk of one path anew."""
    scsi_writes.rescan(_disks(host, wwpn, lun), f"{host} {wwpn}")


@privileged(net)
def fc_disk_delete(host: str, wwpn: str, lun: str) -> bool:
    """Flush the disk of one path, if it answers, and let the kernel drop it; False when there is none. DeviceHeld."""
    return scsi_writes.delete(_disks(host, wwpn, lun), f"{host} {wwpn}")


@privileged(net)
def fc_disk_cut(host: str, wwpn: str, lun: str) -> bool:
    """Let the kernel drop the disk of one path although somebody uses it; False when there is none. VerbRefused."""
    return scsi_writes.cut(_disks(host, wwpn, lun), f"{host} {wwpn}")


def _disks(host: object, wwpn: object, lun: object) -> tuple[scsi.Disk, ...]:
    return fc.disks(_host(host), checks.array_port(wwpn), checks.hex64(lun, "LUN"))


def _host(value: object) -> str:
    known = {one.host for one in fc.host_ports()}
    if not isinstance(value, str) or value not in known:
        raise checks.refused(f"{checks.shown(value)} is no plain Fibre Channel port of this host")
    return value
