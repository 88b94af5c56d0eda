"""Portals that answer are told from those that don't, without waiting for the latter one after the other."""

from __future__ import annotations

import asyncio
import socket

import pytest

from agent.connectors.errors import PathDown
from agent.connectors.probing import answering, each, hear, place, worth_trying
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


async def test_who_answers_is_heard_although_another_one_never_does() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    with socket.socket() as full:  # its queue is: a further connection is neither taken nor refused
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()):
            there, mute = (Portal(address="127.0.0.1", port=one.getsockname()[1]) for one in (server.sockets[0], full))
            heard: set[Portal] = set()
            asking = asyncio.create_task(hear((mute, there), "tcp", heard))
            while not heard:
                await asyncio.sleep(0.01)
            assert (heard, asking.done()) == ({there}, False)
            asking.cancel()
            await asyncio.wait({asking})
            await hear((there,), "iser", unheard := set[Portal]())
            assert not unheard
    server.close()
    await server.wait_closed()


async def test_of_several_only_those_are_tried_that_listen_or_have_a_path() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    with socket.socket() as silent, socket.socket() as lost:
        for one in (silent, lost):
            one.bind(("127.0.0.1", 0))
        there, dead, known = (
            Portal(address="127.0.0.1", port=one.getsockname()[1]) for one in (server.sockets[0], silent, lost)
        )
        tried, told = await worth_trying((dead, there, known), {place(known)})
        assert tried == (there, known)
        assert told == [f"Nobody listens at 127.0.0.1:{dead.port}."]
        assert await worth_trying((dead,), ()) == ((dead,), [])
    server.close()
    await server.wait_closed()


async def test_what_does_not_go_by_tcp_is_not_asked_by_it() -> None:
    portals = (Portal(address="192.0.2.1", port=1), Portal(address="192.0.2.1", port=2))
    assert await answering(portals, "rdma") == portals
    assert await worth_trying(portals, (), "iser") == (portals, [])


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
