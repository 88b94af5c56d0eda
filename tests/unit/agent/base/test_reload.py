"""What a reload takes over, and what waits for the next start; the reference says the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.base.configdoc import keys, markdown
from agent.base.reload import Reloads, changes
from agent.server.settings import AgentSettings
from coordinator.server.settings import CoordinatorSettings


def test_what_is_marked_is_taken_over_and_the_rest_is_named() -> None:
    old = AgentSettings.model_validate({"backends": {"a": {"path": "/a"}}})
    new = AgentSettings.model_validate(
        {"backends": {"a": {"path": "/a"}, "b": {"path": "/b"}}, "log": {"level": "debug"}, "agent": {"port": 9}}
    )
    found = changes(old, new)
    assert (set(found.taken), found.later) == ({"backends", "log"}, ("agent.port",))
    assert changes(old, old) == type(found)((), ())
    coordinator = CoordinatorSettings.model_validate({"fleet": {"away_deadline_s": 5, "poll_interval_s": 1}})
    found = changes(CoordinatorSettings(), coordinator)
    assert (found.taken, found.later) == (("fleet.away_deadline_s",), ("fleet.poll_interval_s",))


def test_the_reference_marks_them() -> None:
    live = {key.dotted for key in keys(AgentSettings) if key.reloaded}
    assert {"backends.NAME.path", "log.level"} <= live
    assert "agent.port" not in live
    assert "| `log.level` ↻ |" in markdown(CoordinatorSettings)


async def test_a_reload_that_is_asked_for_during_another_comes_after_it(tmp_path: Path) -> None:
    going, done = asyncio.Event(), []

    async def reload() -> None:
        await going.wait()
        done.append(len(done))
        if len(done) == 1:
            raise RuntimeError("a defect does not end it")

    reloads = Reloads(reload)
    reloads.asked()
    await asyncio.sleep(0)
    reloads.asked()
    reloads.asked()
    going.set()
    async with asyncio.timeout(60):
        while len(done) < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert done == [0, 1]
