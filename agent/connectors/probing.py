"""Portals: where they are, and whether somebody listens there.

That is asked before a log-in is tried again, which would take much longer to fail.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable

from agent.wire.jobs import Portal

_SECONDS = 3.0


def place(portal: Portal) -> tuple[str, int]:
    """Address and port as the kernel tells them: one address in one form."""
    return str(ipaddress.ip_address(portal.address)), portal.port


async def answering(portals: Iterable[Portal]) -> tuple[Portal, ...]:
    """Those at which a TCP connection can be made, asked all at once."""
    asked = tuple(portals)
    told = await asyncio.gather(*(_answers(one) for one in asked))
    return tuple(one for one, there in zip(asked, told, strict=True) if there)


async def _answers(portal: Portal) -> bool:
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(portal.address, portal.port)
    except OSError:
        return False
    writer.close()
    return True
