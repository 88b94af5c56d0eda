"""Acknowledgements: a lost one is sent again, and one host that is away keeps nobody else waiting."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from agent.wire.errors import Undelivered
from coordinator.operations import acknowledge
from coordinator.operations.acknowledge import Acknowledger


class Host:
    """Refuses so many calls, then hears."""

    def __init__(self, refuses: int) -> None:
        self.refuses, self.heard, self.calls = refuses, [], 0
        self.told = asyncio.Event()

    heard: list[str]

    async def acknowledge(self, keys: list[str]) -> None:
        self.calls += 1
        if self.calls <= self.refuses:
            raise Undelivered(peer="host", reason="refused")
        self.heard += keys
        self.told.set()


class Hosts:
    def __init__(self, **hosts: Host) -> None:
        self.hosts = hosts

    def client(self, host_id: str) -> Host | None:
        return self.hosts.get(host_id)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledge, "_GATHER_S", 0.01)
    monkeypatch.setattr(acknowledge, "_SLOWEST_S", 0.02)


async def run(teller: Acknowledger, until: asyncio.Event) -> None:
    task = asyncio.create_task(teller.run())
    await asyncio.wait_for(until.wait(), 60)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_a_lost_one_is_sent_again_with_what_came_since() -> None:
    away, here = Host(refuses=3), Host(refuses=0)
    teller = Acknowledger(Hosts(away=away, here=here))  # type: ignore[arg-type]
    teller.add([("away", "one"), ("here", "two"), ("gone", "three")])
    assert not await teller.flush()
    assert here.heard == ["two"]
    teller.add([("away", "four")])
    await run(teller, away.told)
    assert sorted(away.heard) == ["four", "one"]
    assert await teller.flush()
    assert away.calls == 4


async def test_one_that_never_answers_is_left_to_its_next_poll() -> None:
    away = Host(refuses=1000)
    teller = Acknowledger(Hosts(away=away))  # type: ignore[arg-type]
    teller.add([("away", "one")])
    for _ in range(acknowledge._TRIES - 1):
        assert not await teller.flush()
    assert await teller.flush()
    assert await teller.flush()
    assert away.calls == acknowledge._TRIES
