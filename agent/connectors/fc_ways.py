"""The ways to a volume on a Fibre Channel fabric, whatever kind of port this host has: plain adapters, FCP devices."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from agent.base.errors import BrickyardError
from agent.connectors import fc_hba
from agent.connectors.errors import DeviceMismatch, NoFabricPort
from agent.host import scsi
from agent.privsep.errors import DeviceHeld
from agent.wire.jobs import Connection
from agent.zfcp import attach as zfcp
from agent.zfcp.lun import Addressing


class Way(Protocol):
    """One port of this host, one port of the array, one LUN. `adapter` is `host3`, or the bus id of an FCP device."""

    @property
    def adapter(self) -> str: ...

    @property
    def wwpn(self) -> str: ...

    @property
    def lun(self) -> str: ...

    @property
    def mode(self) -> str:
        """`scan`: a disk comes by the kernel's own look; `unit`: its unit was, or has to be, added by hand."""

    def disk(self) -> scsi.Disk | None:
        """Its disk, as soon as the kernel has given it a name."""

    def hopeless(self) -> str:
        """Why no disk will come by itself; empty as long as one may."""

    async def ask(self) -> Way:
        """Have the kernel look at the LUN. What it refuses is told by `hopeless`; VerbRefused is raised."""

    async def rescan(self) -> None:
        """Let the kernel read size and identity of the disk anew."""

    async def remove(self) -> bool:
        """Give up the disk, flushed where it answers, and what was made for it; False: nothing was there. DeviceHeld"""

    async def cut(self) -> bool:
        """Take the disk away from who uses it; False: nothing was there."""

    def left(self) -> tuple[str, ...]:
        """What the kernel still shows of it, for people."""

    def links(self) -> tuple[str, ...]:
        """Its names below /dev/disk/by-path."""


async def begin(connection: Connection) -> tuple[Way, ...]:
    """Ask for the LUN on every way that there may be; nothing is waited for. NoFabricPort, BadLun, VerbRefused."""
    ports = _ports(connection)
    await zfcp.search(zfcp.possible(*ports))
    found = possible(connection)
    if not found:
        told = (*zfcp.idle(), *fc_hba.idle())
        raise NoFabricPort(reason=", ".join(told) or "it has none, or none is set online")
    return await ask(found)


def possible(connection: Connection) -> tuple[Way, ...]:
    """Every way that there may be over ports of this host that have a link. Blocking reads."""
    ports = _ports(connection)
    return (*zfcp.possible(*ports), *fc_hba.possible(*ports))


async def ask(ways: Sequence[Way]) -> tuple[Way, ...]:
    """All at once: one that answers slowly keeps no other one waiting."""
    return tuple(await asyncio.gather(*(one.ask() for one in ways)))


def known(connection: Connection) -> tuple[Way, ...]:
    """Every way of which the kernel shows something now, for people too. Blocking reads."""
    ports = _ports(connection)
    return (*zfcp.known(*ports), *fc_hba.known(*ports))


async def remove(ways: Sequence[Way]) -> bool:
    """Give up every one; the refusal that says most is raised after all were tried. False when nothing was there."""
    there, refused = False, None
    for one in ways:
        try:
            there |= await one.remove()
        except BrickyardError as error:
            refused = refused if isinstance(refused, DeviceHeld) else error
    if refused is not None:
        raise refused
    return there


def _ports(connection: Connection) -> tuple[list[zfcp.Port], Addressing]:
    fabric = connection.fabric
    if fabric is None:
        raise DeviceMismatch(device=connection.target, attachment=connection.target, reason="no port was given")
    return [(port.wwpn, port.lun) for port in fabric.ports], fabric.addressing
