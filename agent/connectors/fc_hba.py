"""Paths to a LUN over plain Fibre Channel adapters: one for each port of this host and each port of the array.

The kernel takes in by itself what a port of an array shows when it logs in; what the array maps later is looked at by
its address, never by a scan of everything, which would bring other volumes of the array along.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from agent.host import fc, scsi
from agent.host.kernel import current
from agent.privsep import fc as verbs
from agent.privsep.client import call
from agent.privsep.errors import VerbRefused
from agent.zfcp.attach import Port
from agent.zfcp.lun import Addressing, fcp_lun, port_name

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HbaPath:
    """See `agent.connectors.fc_ways.Way`. `refused` is what the kernel said to the scan."""

    adapter: str
    wwpn: str
    lun: str
    refused: str = ""
    mode = "scan"

    def disk(self) -> scsi.Disk | None:
        return next((disk for disk in fc.disks(self.adapter, self.wwpn, self.lun) if disk.name), None)

    def hopeless(self) -> str:
        place = f"{self.adapter} {self.wwpn}"
        seen = fc.array_ports(self.adapter, self.wwpn)
        if not seen:
            return f"{place}: the fabric shows no such port"
        if seen[0].state != "Online":
            return f"{place}: the port is {seen[0].state.lower()}"
        if seen[0].target is None:
            return f"{place}: the port has logged in, but not as a target"
        return f"{place}: {self.refused}" if self.refused else ""

    async def ask(self) -> HbaPath:
        if self.disk() is not None or not any(one.online for one in fc.array_ports(self.adapter, self.wwpn)):
            return self
        try:
            await call(verbs.fc_scan, self.adapter, self.wwpn, self.lun)
        except VerbRefused:
            raise
        except BrickyardError as error:
            log.warning("a path could not be asked for", host=self.adapter, port=self.wwpn, reason=str(error))
            return replace(self, refused=str(error))
        there = fc.disks(self.adapter, self.wwpn, self.lun)  # the look has ended; only the disk's name may come later
        return replace(self, refused="" if there else "the array shows no such LUN to this port")

    async def rescan(self) -> None:
        await call(verbs.fc_disk_rescan, self.adapter, self.wwpn, self.lun)

    async def remove(self) -> bool:
        return await call(verbs.fc_disk_delete, self.adapter, self.wwpn, self.lun)

    async def cut(self) -> bool:
        return await call(verbs.fc_disk_cut, self.adapter, self.wwpn, self.lun)

    def left(self) -> tuple[str, ...]:
        return tuple(disk.name or disk.address for disk in fc.disks(self.adapter, self.wwpn, self.lun))

    def links(self) -> tuple[str, ...]:
        disk, folder = self.disk(), current().dev / "disk" / "by-path"
        named = folder.glob(f"*-fc-{self.wwpn}-lun-*") if disk is not None else ()
        return tuple(sorted(link.name for link in named if disk and link.resolve().name == disk.name))


def possible(ports: Sequence[Port], addressing: Addressing) -> tuple[HbaPath, ...]:
    """Every path that there may be over ports of this host that have a link. BadLun."""
    return _paths([one.host for one in fc.host_ports() if one.usable], ports, addressing)


def known(ports: Sequence[Port], addressing: Addressing) -> tuple[HbaPath, ...]:
    """Every path of which the kernel shows something, also over ports that have lost their link."""
    hosts = [one.host for one in fc.host_ports()]
    return tuple(one for one in _paths(hosts, ports, addressing) if one.left())


def idle() -> tuple[str, ...]:
    """The ports of this host that can not be used now, for people."""
    return tuple(f"{one.host} is {one.state}" for one in fc.host_ports() if not one.usable)


def _paths(hosts: Sequence[str], ports: Sequence[Port], addressing: Addressing) -> tuple[HbaPath, ...]:
    named = [(port_name(wwpn), fcp_lun(lun, addressing)) for wwpn, lun in ports]
    return tuple(HbaPath(host, wwpn, lun) for host in hosts for wwpn, lun in named)
