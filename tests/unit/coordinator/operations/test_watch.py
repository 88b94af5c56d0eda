"""Who waits for operations: nothing is kept of one that nobody waits for and that is not worked on here."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.base.ids import new_id
from coordinator.operations.watch import Watchers
from tests.unit.coordinator.operations.support import site
from tests.unit.coordinator.operations.test_engine_faults import accepted


async def test_nothing_is_kept_of_those_who_waited_in_vain() -> None:
    watchers = Watchers()
    await watchers.change("gone", 0, 0.01)
    waiting = [asyncio.create_task(watchers.change("other", 0, 600)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    watchers.stir("other")
    await asyncio.wait_for(waiting[1], 60)
    assert not watchers._by_id


async def test_progress_of_what_another_has_taken_over_is_not_told_any_more() -> None:
    watchers = Watchers()
    watchers.progress("a", {"done": 1})
    watchers.progress("b", {"done": 1})
    with watchers.waits("a"):
        end = watchers.ended("a")
        for each in ("a", "b"):
            watchers.left(each)
        assert watchers.latest("a") == (0, None)
        assert watchers.watched("a")
        assert not end.done()
    assert not watchers._by_id


async def test_an_engine_keeps_nothing_of_waits_that_are_over(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        engine = here.engine
        assert await engine.wait(new_id(), 60) is None
        operation = await accepted(here)
        assert await engine.wait(operation.id, 0.01) is None
        assert not engine.watchers._by_id
        engine.progress(operation.id, {"done": 1})
        waiting = asyncio.create_task(engine.wait(operation.id, 600))
        engine.start(operation)
        ended = await asyncio.wait_for(waiting, 120)
        assert ended is not None
        assert ended.state == "done"
        while engine.held():
            await asyncio.sleep(0)
        assert not engine.watchers._by_id
