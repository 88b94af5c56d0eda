"""A silent cluster holds up nobody who asks about it."""

from __future__ import annotations

import asyncio

import pytest

from agent.backends.rbd_errors import ClusterDenied, ClusterHangs
from agent.backends.rbd_patience import Patient


class Cluster:
    """Answers with a number that grows, once it may."""

    def __init__(self) -> None:
        self.asked, self.may = 0, asyncio.Event()
        self.error: Exception | None = None
        self.may.set()

    async def ask(self) -> int:
        self.asked += 1
        told = self.asked
        await self.may.wait()
        if self.error is not None:
            raise self.error
        return told


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.backends.rbd_patience._PATIENCE_S", 0.05)


async def test_each_question_is_asked_anew_once_the_last_was_answered() -> None:
    cluster = Cluster()
    asking = Patient("ceph", cluster.ask, 60.0)
    assert await asking.get() == 1
    assert await asyncio.gather(asking.get(), asking.get()) == [2, 2]


async def test_what_was_known_is_told_while_it_is_silent_and_for_a_while_alone() -> None:
    cluster = Cluster()
    kept, strict = Patient("ceph", cluster.ask, 600.0), Patient("ceph", cluster.ask, 0.0)
    assert (await kept.get(), await strict.get()) == (1, 2)
    cluster.may.clear()
    for _ in range(3):
        assert await kept.get() == 1
        with pytest.raises(ClusterHangs, match="ceph has not answered within"):
            await strict.get()
    assert cluster.asked == 4
    cluster.may.set()
    while await kept.get() == 1:
        await asyncio.sleep(0)
    assert await strict.get() > 2
    kept.close()
    strict.close()


async def test_a_refusal_is_told_and_what_was_known_before_is_not() -> None:
    cluster = Cluster()
    asking = Patient("ceph", cluster.ask, 600.0)
    assert await asking.get() == 1
    cluster.error = ClusterDenied(backend="ceph", pool="p", user="u", reason="no")
    with pytest.raises(ClusterDenied):
        await asking.get()
    cluster.may.clear()
    with pytest.raises(ClusterHangs):
        await asking.get()
    asking.close()
