"""Portals that answer are told from those that don't, without waiting for the latter one after the other."""

from __future__ import annotations

import asyncio
import socket

import pytest

from agent.connectors.errors import PathDown
from agent.connectors.probing import answering, each, place
from agent.wire.jobs import Portal


async def test_only_those_that_listen() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    with socket.socket() as silent:  # bound, and nobody listens
        silent.bind(("127.0.0.1", 0))
        there = Portal(address="127.0.0.1", port=server.sockets[0].getsockname()[1])
        dead = Portal(address="127.0.0.1", port=silent.getsockname()[1])
        assert await answering([dead, there]) == (there,)
        assert await answering([]) == ()
    server.close()
    await server.wait_closed()


def test_an_address_has_one_form() -> None:
    assert place(Portal(address="fd00:0:0::0001", port=3260)) == ("fd00::1", 3260)


async def test_a_portal_that_refuses_keeps_none_of_the_others_away() -> None:
    portals = [Portal(address="10.0.0.1", port=number) for number in (1, 2, 3)]
    joined = []

    async def join(portal: Portal) -> bool:
        if portal.port == 1:
            raise PathDown(target="t", paths="the first")
        joined.append(portal.port)
        return portal.port == 2

    with pytest.raises(PathDown):
        await each(portals, join)
    assert joined == [2, 3]
    assert await each(portals[1:], join) == 1
