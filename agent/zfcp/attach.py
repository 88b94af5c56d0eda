"""Paths to a LUN over FCP devices of IBM Z: one for each device that is online and each port of the array.

Where the kernel scans by itself (an NPIV port and the module's consent) a path is looked at by its address; elsewhere
its unit is added by hand, and removed again. What is there is read from the kernel each time: units that were added by
hand stand below their port, also while the device is offline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from agent.host import fcp, scsi
from agent.host.kernel import current
from agent.privsep import zfcp as verbs
from agent.privsep.client import call
from agent.privsep.errors import VerbRefused
from agent.zfcp.lun import Addressing, fcp_lun, port_name

log = get_logger(__name__)
Mode = Literal["unit", "scan"]
Port = tuple[str, int]
"""World wide port name (any usual form) and number of the LUN behind it."""


@dataclass(frozen=True, slots=True)
class FcpPath:
    """One way to a LUN: bus id of the FCP device, port and LUN as zfcp writes them.

    `refused` is what the kernel said to the unit.
    """

    adapter: str
    wwpn: str
    lun: str
    refused: str = ""

    @property
    def mode(self) -> Mode:
        """`scan`: the kernel finds LUNs by itself here; `unit`: it was, or has to be, added by hand."""
        if self.lun in fcp.units(self.adapter, self.wwpn):
            return "unit"
        found = fcp.adapter(self.adapter)
        return "scan" if found is not None and fcp.scans_by_itself(found) else "unit"

    def disk(self) -> scsi.Disk | None:
        """Its disk, as soon as the kernel has given it a name."""
        return next((disk for disk in fcp.disks(self.adapter, self.wwpn, self.lun) if disk.name), None)

    def hopeless(self) -> str:
        """Why no disk will come by itself; empty as long as one may."""
        place = f"{self.adapter} {self.wwpn}"
        if not fcp.has_port(self.adapter, self.wwpn):
            return f"{place}: the fabric shows no such port"
        told = [f"{one.where} {one.what}" for one in fcp.troubles(self.adapter, self.wwpn, self.lun) if one.final]
        told += [self.refused] if self.refused else []
        return f"{place}: {', '.join(told)}" if told else ""

    async def ask(self) -> FcpPath:
        """Have the kernel look at the LUN, in the way that holds here. A refusal is told by `hopeless`."""
        if self.disk() is not None or not fcp.has_port(self.adapter, self.wwpn):
            return self
        verb = verbs.zfcp_scan if self.mode == "scan" else verbs.zfcp_unit_add
        try:
            await call(verb, self.adapter, self.wwpn, self.lun)
        except VerbRefused:
            raise
        except BrickyardError as error:
            log.warning("a path could not be asked for", device=self.adapter, port=self.wwpn, reason=str(error))
            return FcpPath(self.adapter, self.wwpn, self.lun, str(error))
        return self

    async def rescan(self) -> None:
        """Let the kernel read size and identity of the disk anew."""
        await call(verbs.zfcp_disk_rescan, self.adapter, self.wwpn, self.lun)

    async def remove(self) -> bool:
        """The disk first, flushed where it answers, then the unit; False when neither was there. DeviceHeld."""
        there = await call(verbs.zfcp_disk_delete, self.adapter, self.wwpn, self.lun)
        if self.lun in fcp.units(self.adapter, self.wwpn):
            there |= await call(verbs.zfcp_unit_remove, self.adapter, self.wwpn, self.lun)
        return there

    async def cut(self) -> bool:
        """The disk alone, although somebody uses it; `remove` does the rest."""
        return await call(verbs.zfcp_disk_cut, self.adapter, self.wwpn, self.lun)

    def left(self) -> tuple[str, ...]:
        """What the kernel still shows of it, for people."""
        disks = [disk.name or disk.address for disk in fcp.disks(self.adapter, self.wwpn, self.lun)]
        units = [f"unit {self.lun} of {self.wwpn}"] if self.lun in fcp.units(self.adapter, self.wwpn) else []
        return (*disks, *units)

    def links(self) -> tuple[str, ...]:
        """Its names below /dev/disk/by-path."""
        folder = current().dev / "disk" / "by-path"
        names = fcp.path_names(self.adapter, self.wwpn, self.lun)
        return tuple(name for name in names if (folder / name).is_symlink())


def possible(ports: Sequence[Port], addressing: Addressing) -> tuple[FcpPath, ...]:
    """Every path that there may be over devices that are online. BadLun."""
    return _paths([adapter.bus_id for adapter in fcp.adapters() if adapter.usable], ports, addressing)


async def search(wanted: Sequence[FcpPath]) -> None:
    """Have devices look again for ports that they do not see. VerbRefused."""
    for bus_id in dict.fromkeys(one.adapter for one in wanted if not fcp.has_port(one.adapter, one.wwpn)):
        await call(verbs.zfcp_port_rescan, bus_id)


def idle() -> tuple[str, ...]:
    """The FCP devices that can not be used now, for people."""
    return tuple(f"{one.bus_id} is {one.port_state}" for one in fcp.adapters() if not one.usable)


def known(ports: Sequence[Port], addressing: Addressing) -> tuple[FcpPath, ...]:
    """Every path of which the kernel shows something, also over devices that are offline now."""
    return tuple(one for one in _paths(fcp.every(), ports, addressing) if one.left())


def _paths(bus_ids: Sequence[str], ports: Sequence[Port], addressing: Addressing) -> tuple[FcpPath, ...]:
    named = [(port_name(wwpn), fcp_lun(lun, addressing)) for wwpn, lun in ports]
    return tuple(FcpPath(bus_id, wwpn, lun) for bus_id in bus_ids for wwpn, lun in named)
