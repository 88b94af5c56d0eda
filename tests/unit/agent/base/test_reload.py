"""What a reload takes over, and what waits for the next start; the reference says the same."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.base import reload as reloading
from agent.base.config import ConfigError, load
from agent.base.configdoc import keys, markdown
from agent.base.reload import Reloads, changes, settled
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


ONE = '[backends.one]\npath = "/one"\n'


def reader(file: Path, *later: str) -> tuple[list[int], object]:
    """Reads the file, and after each reading goes on writing it."""
    rest, lengths = list(later), list[int]()

    def read() -> AgentSettings:
        lengths.append(len(file.read_text()))
        try:
            return load(AgentSettings, file)
        finally:
            if rest:
                with file.open("a") as out:
                    out.write(rest.pop(0))

    return lengths, read


async def test_a_file_that_is_being_written_is_read_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "_STILL_S", 0.01)
    file = tmp_path / "agent.toml"
    file.write_text("[agent]\n")
    lengths, read = reader(file, "port = ", "9\n", ONE, '[backends.two]\npath = "/two"\n')
    found = await settled(read, file)  # type: ignore[arg-type]
    assert (found.agent.port, set(found.backends)) == (9, {"one", "two"})
    assert len(lengths) == 5
    assert lengths == sorted(lengths)


async def test_a_mistake_in_a_whole_file_is_told_and_writing_without_end_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reloading, "_STILL_S", 0.01)
    file = tmp_path / "agent.toml"
    file.write_text("[agent]\nport = \n")
    with pytest.raises(ConfigError, match=r"agent\.toml:2"):
        await settled(lambda: load(AgentSettings, file), file)
    monkeypatch.setattr(reloading, "_PATIENCE_S", 0.1)
    file.write_text("")
    _, read = reader(file, *["# more\n"] * 1000)
    with pytest.raises(ConfigError, match="still being written"):
        await settled(read, file)  # type: ignore[arg-type]


async def test_without_a_file_there_is_nothing_to_wait_for() -> None:
    assert await settled(lambda: 7, None) == 7
