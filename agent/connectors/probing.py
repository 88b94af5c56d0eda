"""Portals: where they are, and whether somebody listens there.

That is asked before a log-in is tried again, which would take much longer to fail.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Collection, Iterable

from agent.base.errors import BrickyardError
from agent.host import rdma
from agent.privsep.errors import NoRdma
from agent.wire.jobs import Connection, Portal

_SECONDS = 3.0


def place(portal: Portal) -> tuple[str, int]:
    """Address and port as the kernel tells them: one address in one form."""
    return str(ipaddress.ip_address(portal.address)), portal.port


async def need_device(connection: Connection) -> None:
    """NoRdma, where it is to go by RDMA and this host has nothing for that: a log-in would wait for it to come."""
    if connection.transport != "tcp" and not await asyncio.to_thread(rdma.active):
        raise NoRdma(what=f"the way to {connection.target}", reason="none is active")


async def answering(portals: Iterable[Portal], transport: str = "tcp") -> tuple[Portal, ...]:
    """Those at which a TCP connection can be made, asked all at once; another transport can not be asked so."""
    asked = tuple(portals)
    if transport != "tcp":
        return asked
    told = await asyncio.gather(*(_answers(one) for one in asked))
    return tuple(one for one, there in zip(asked, told, strict=True) if there)


async def hear(portals: Iterable[Portal], transport: str, heard: set[Portal]) -> None:
    """Add each to `heard` as soon as it has answered; to be cancelled by who needs to know no more."""

    async def ask(portal: Portal) -> None:
        if await _answers(portal):
            heard.add(portal)

    if transport == "tcp":
        await asyncio.gather(*(ask(one) for one in portals))


async def worth_trying(
    portals: tuple[Portal, ...], paths: Collection[tuple[str, int]], transport: str = "tcp"
) -> tuple[tuple[Portal, ...], list[str]]:
    """Of several, in their order: those with a path, or where somebody listens; and what is to be told of the others.

    `paths` holds the places (address, port) to which there is one. One portal alone is tried in any case.
    """
    if len(portals) < 2:
        return portals, []
    open_ = await answering((one for one in portals if place(one) not in paths), transport)
    worth = tuple(one for one in portals if one in open_ or place(one) in paths)
    silent = [place(one) for one in portals if one not in worth]
    return worth, [f"Nobody listens at {f'[{host}]' if ':' in host else host}:{port}." for host, port in silent]


async def each(portals: Iterable[Portal], join: Callable[[Portal], Awaitable[bool]]) -> int:
    """Join one after the other; how many were joined. The error of one is raised only after all were tried."""
    made, failed = 0, None
    for portal in portals:
        try:
            made += await join(portal)
        except BrickyardError as error:
            failed = error
    if failed is not None:
        raise failed
    return made


async def _answers(portal: Portal) -> bool:
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(portal.address, portal.port)
    except OSError:
        return False
    writer.close()
    return True
