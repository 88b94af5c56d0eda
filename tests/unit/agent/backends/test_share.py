"""Shares: nothing is touched unless the right one is mounted; what hangs is given up, and not met by its repetition."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from agent.backends.config import NfsBackendConfig, SmbBackendConfig
from agent.backends.errors import NotMounted, ShareHangs
from agent.backends.file import FileBackend
from agent.backends.share import Lane, ShareBackend
from agent.base.ids import new_id
from agent.server.settings import AgentSettings


def backend(path: Path) -> ShareBackend:
    return ShareBackend("n", NfsBackendConfig(driver="nfs", path=path, share="server:/export"))


async def test_nothing_is_written_where_the_share_is_not_mounted(tmp_path: Path) -> None:
    share = backend(tmp_path / "point")
    (tmp_path / "point").mkdir()
    with pytest.raises(NotMounted) as caught:
        await share.create(new_id(), 1 << 20)
    assert "server:/export" in str(caught.value)
    assert not list((tmp_path / "point").iterdir())
    first = await share.issues()
    assert [one.code for one in first] == ["backend.not-mounted"]
    assert (await share.issues())[0].since == first[0].since
    share.close()


async def test_a_call_that_hangs_is_given_up_and_keeps_others_out_until_it_is_back() -> None:
    lane, gate = Lane("n", 1.0), threading.Event()
    assert await lane.run(lambda: 3) == 3
    with pytest.raises(ShareHangs):
        await lane.run(lambda: gate.wait(60))
    with pytest.raises(ShareHangs):
        await lane.run(lambda: 4)
    gate.set()
    async with asyncio.timeout(60):
        while lane._late:
            await asyncio.sleep(0.01)
    assert await lane.run(lambda: 5) == 5


async def test_a_share_that_is_opened_too_late_for_its_caller_is_there_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, gate, device = backend(tmp_path), threading.Event(), tmp_path.stat().st_dev
    share._lane = Lane("n", 1.0)

    class Slow(FileBackend):
        def device(self) -> int:
            gate.wait(60)
            return super().device()

    monkeypatch.setattr("agent.backends.share.FileBackend", Slow)
    monkeypatch.setattr("agent.backends.share.mounted", lambda *_: device)
    with pytest.raises(ShareHangs):
        await share.inventory()
    gate.set()
    async with asyncio.timeout(60):
        while share._lane._late:
            await asyncio.sleep(0.01)
    late = share._files
    assert late is not None
    assert await share.inventory() == []
    assert share._files is late
    share.close()


async def test_another_mount_that_is_opened_too_late_takes_the_place_of_the_one_that_was_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = backend(tmp_path)
    device = tmp_path.stat().st_dev
    monkeypatch.setattr("agent.backends.share.mounted", lambda *_: device)
    assert await share.inventory() == []
    first = share._files
    assert first is not None
    monkeypatch.setattr(first, "device", lambda: device + 1)
    run = share._lane.run

    async def late(blocking: Callable[[], object]) -> object:
        await run(blocking)
        raise ShareHangs(backend="n", seconds=1.0)

    monkeypatch.setattr(share._lane, "run", late)
    with pytest.raises(ShareHangs):
        await share.inventory()
    monkeypatch.setattr(share._lane, "run", run)
    assert await share.inventory() == []
    share.close()


async def test_failures_come_through() -> None:
    lane = Lane("n", 20.0)

    def fails() -> None:
        raise FileNotFoundError("x")

    with pytest.raises(FileNotFoundError):
        await lane.run(fails)
    found = await asyncio.gather(*(lane.run(lambda: threading.current_thread().name) for _ in range(20)))
    assert set(found) == {"share-n"}


@pytest.mark.parametrize(
    "table",
    [
        {"driver": "nfs", "path": "/x"},
        {"driver": "nfs", "path": "/x", "share": "/local"},
        {"driver": "nfs", "path": "/x", "share": "//server/share"},
        {"driver": "smb", "path": "/x", "share": "server:/x"},
    ],
)
def test_shares_are_named_as_the_kernel_names_them(table: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        AgentSettings.model_validate({"backends": {"one": table}})


def test_a_share_below_another_back_end_is_refused() -> None:
    files = {"path": "/srv/a"}
    share = {"driver": "smb", "path": "/srv/a/b", "share": "//s/x"}
    with pytest.raises(ValidationError, match="share the folder"):
        AgentSettings.model_validate({"backends": {"one": files, "two": share}})
    read = AgentSettings.model_validate({"backends": {"two": share}})
    assert isinstance(read.backends["two"], SmbBackendConfig)
    assert read.folders == {}
    assert read.roots == [Path("/srv/a/b")]
