"""Back ends of a host: one that is away keeps nobody from working and comes in by itself; reloads open and let go."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from agent.backends.config import BackendConfig, FileBackendConfig
from agent.backends.errors import NoSpace
from agent.backends.file import FileBackend
from agent.backends.kept import Backends
from agent.jobs.errors import BackendAway, UnknownBackend
from agent.jobs.journal import Journal
from agent.jobs.services import Services


class Storage:
    """Opens real back ends, but those that are away."""

    def __init__(self) -> None:
        self.away: set[str] = set()
        self.tries: dict[str, int] = {}

    def open(self, name: str, config: BackendConfig) -> FileBackend:
        self.tries[name] = self.tries.get(name, 0) + 1
        if name in self.away:
            raise NoSpace(backend=name)
        assert isinstance(config, FileBackendConfig)
        return FileBackend(name, config)


def config(tmp_path: Path, name: str, **more: object) -> FileBackendConfig:
    return FileBackendConfig.model_validate({"path": tmp_path / name, **more})


async def test_one_that_is_away_is_tried_again_and_the_others_work(tmp_path: Path) -> None:
    storage = Storage()
    storage.away = {"b"}
    kept = Backends(storage.open)
    await kept.follow({name: config(tmp_path, name) for name in "ab"})
    services = Services(host="h", journal=Journal(tmp_path / "j"), backends=kept, away=kept.away)
    assert (list(kept), list(kept.away), kept.configured) == (["a"], ["b"], ("a", "b"))
    assert (await services.backend("a").pools())[0].name == "a"
    with pytest.raises(BackendAway, match="can not be used"):
        services.backend("b")
    with pytest.raises(UnknownBackend):
        services.backend("c")
    storage.away.clear()
    async with asyncio.timeout(60):
        while "b" not in kept:
            await asyncio.sleep(0.05)
    assert (kept.away, storage.tries["b"]) == ({}, 2)
    kept.close()


async def test_a_reload_opens_changes_and_lets_go(tmp_path: Path) -> None:
    storage = Storage()
    kept = Backends(storage.open)
    first = {name: config(tmp_path, name) for name in "ab"}
    await kept.follow(first)
    a, b = kept["a"], kept["b"]
    await kept.follow({"a": first["a"], "b": config(tmp_path, "b", reserved_percent=5), "c": config(tmp_path, "c")})
    assert kept["a"] is a
    assert kept["b"] is not b
    assert (await kept["b"].pools())[0].reserved_percent == 5
    # A job that works on what was let go of ends on it.
    assert (await b.pools())[0].name == "b"
    assert sorted(kept) == ["a", "b", "c"]
    await kept.follow({"a": first["a"]})
    assert list(kept) == ["a"]
    storage.away = {"b"}
    await kept.follow(first)
    await kept.follow({"a": first["a"]})
    assert (kept.away, list(kept)) == ({}, ["a"])
    kept.close()


async def test_one_that_is_changed_serves_until_it_is_open_anew(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()
    storage = Storage()

    def slowly(name: str, wanted: BackendConfig) -> FileBackend:
        if wanted.reserved_percent:
            begun.set()
            assert go_on.wait(120)
        return storage.open(name, wanted)

    kept = Backends(slowly)
    await kept.follow({"a": config(tmp_path, "a")})
    before = kept["a"]
    changing = asyncio.create_task(kept.follow({"a": config(tmp_path, "a", reserved_percent=5)}))
    assert await asyncio.to_thread(begun.wait, 120)
    assert (kept["a"], kept.away) == (before, {})
    go_on.set()
    await changing
    assert (await kept["a"].pools())[0].reserved_percent == 5
    storage.away = {"a"}
    await kept.follow({"a": config(tmp_path, "a", reserved_percent=6)})
    assert (list(kept), list(kept.away)) == ([], ["a"])
    kept.close()
