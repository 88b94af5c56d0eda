"""Portals that answer are told from those that don't, without waiting for the latter one after the other."""

from __future__ import annotations

import asyncio
import socket

from agent.connectors.probing import answering, place
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
