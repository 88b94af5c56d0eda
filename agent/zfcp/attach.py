"""Paths to one LUN over FCP devices of IBM Z, one for each device that is online and each target port.

Where the kernel scans by itself (an NPIV port and the module's consent) nothing is added by hand; elsewhere each unit
is, and is removed again. Which of the two held at attach time is told with the path and belongs to the attachment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agent.base.errors import BrickyardError
from agent.host import ccw, fcp, udev
from agent.host.kernel import current
from agent.privsep import zfcp as verbs
from agent.privsep.client import call
from agent.privsep.errors import NotOnThisPlatform
from agent.zfcp.errors import NoAdapter, NoPath

DEADLINE = 30.0
_SUBSYSTEMS = ("block", "scsi", "ccw", "fc_remote_ports")
Mode = Literal["unit", "scan"]


@dataclass(frozen=True, slots=True)
class Path:
    """One way to the LUN: `mode` tells whether its unit was added by hand; `disk` is the kernel's name (`sda`)."""

    bus_id: str
    wwpn: str
    lun: str
    mode: Mode
    disk: str


async def attach(wwpns: Sequence[str], lun: str, *, deadline: float = DEADLINE) -> tuple[Path, ...]:
    """Every path that comes within the deadline: the healthy ones do not wait for a dead one longer than that.

    Ports and LUN as `agent.zfcp.lun` writes them. NotOnThisPlatform, NoAdapter, NoPath (with what each path says).
    """
    if not ccw.is_there():
        raise NotOnThisPlatform(device="FCP")
    everyone = fcp.adapters()
    usable = [adapter for adapter in everyone if adapter.usable]
    if not usable:
        told = ", ".join(f"{one.bus_id} is {one.port_state}" for one in everyone) or "none is set online"
        raise NoAdapter(reason=told)
    async with current().events(*_SUBSYSTEMS) as events:
        wanted = [await _begin(adapter, wwpn, lun) for adapter in usable for wwpn in wwpns]
        found = await _wait(wanted, events, deadline)
    if not found:
        reasons = "; ".join(_why(one) for one in wanted)
        await remove(wanted)
        raise NoPath(lun=lun, seconds=deadline, reason=reasons)
    return found


async def detach(paths: Sequence[Path], *, deadline: float = DEADLINE) -> None:
    """The disks first, then the units that were added by hand; right also when some are gone. DeviceHeld, NoPath."""
    async with current().events(*_SUBSYSTEMS) as events:
        await remove(paths)
        clock = asyncio.get_running_loop().time
        end = clock() + deadline
        while left := [disk.name or disk.address for one in paths for disk in fcp.disks(one.bus_id, one.wwpn, one.lun)]:
            if clock() >= end or await events.wait(lambda event: True, end - clock()) is None:
                raise NoPath(lun=paths[0].lun, seconds=deadline, reason=f"still there: {', '.join(left)}")


async def remove(paths: Sequence[Path]) -> None:
    """Give up every path; the first refusal is raised after all were tried."""
    refused: BrickyardError | None = None
    for one in paths:
        try:
            await call(verbs.zfcp_disk_delete, one.bus_id, one.wwpn, one.lun)
            if one.mode == "unit":
                await call(verbs.zfcp_unit_remove, one.bus_id, one.wwpn, one.lun)
        except BrickyardError as error:
            refused = refused or error
    if refused is not None:
        raise refused


async def _begin(adapter: fcp.Adapter, wwpn: str, lun: str) -> Path:
    if not fcp.has_port(adapter.bus_id, wwpn):
        await call(verbs.zfcp_port_rescan, adapter.bus_id)
    mode: Mode = "scan" if fcp.scans_by_itself(adapter) else "unit"
    if mode == "unit" and fcp.has_port(adapter.bus_id, wwpn):
        await call(verbs.zfcp_unit_add, adapter.bus_id, wwpn, lun)
    return Path(adapter.bus_id, wwpn, lun, mode, "")


async def _wait(wanted: Sequence[Path], events: udev.Events, deadline: float) -> tuple[Path, ...]:
    """All paths, or those that are there when the time is over; a port that comes late gets its unit then."""
    clock = asyncio.get_running_loop().time
    end = clock() + deadline
    added = {(one.bus_id, one.wwpn) for one in wanted if fcp.has_port(one.bus_id, one.wwpn)}
    while True:
        found = tuple(named for one in wanted if (named := _named(one)) is not None)
        if len(found) == len(wanted) or clock() >= end:
            return found
        for one in wanted:
            if one.mode == "unit" and (one.bus_id, one.wwpn) not in added and fcp.has_port(one.bus_id, one.wwpn):
                added.add((one.bus_id, one.wwpn))
                await call(verbs.zfcp_unit_add, one.bus_id, one.wwpn, one.lun)
        if await events.wait(lambda event: True, end - clock()) is None:
            return tuple(named for one in wanted if (named := _named(one)) is not None)


def _named(path: Path) -> Path | None:
    names = [disk.name for disk in fcp.disks(path.bus_id, path.wwpn, path.lun) if disk.name]
    return Path(path.bus_id, path.wwpn, path.lun, path.mode, names[0]) if names else None


def _why(path: Path) -> str:
    place = f"{path.bus_id} {path.wwpn}"
    if not fcp.has_port(path.bus_id, path.wwpn):
        return f"{place}: the fabric shows no such port"
    told = ", ".join(f"{one.where} {one.what}" for one in fcp.troubles(path.bus_id, path.wwpn, path.lun))
    return f"{place}: {told or 'the array shows no such LUN to this port'}"
