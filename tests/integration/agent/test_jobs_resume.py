"""What an agent takes up again: after a graceful stop, behind an old tool, from a journal of an earlier release."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.wire.errors import OutcomeUnknown, Undelivered
from agent.wire.jobs import LuksFormat, VolumeClone, VolumeCreate, WireSecret, request_for
from tests.integration.agent.agent_process import AgentProcess, Site, finish

MIB = 1 << 20
CORPUS = sorted((Path(__file__).parent / "corpus").glob("journal-*.sql"))
VOLUMES = {name: f"00000000-0000-4000-8000-00000000000{index}" for index, name in enumerate(
    ("source", "clone", "fresh", "secret", "unwanted", "finished"), 1)}  # fmt: skip


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.remove()


@pytest.fixture
async def agent(site: Site) -> AsyncIterator[AgentProcess]:
    made = AgentProcess(site)
    yield made
    await made.kill()


async def test_a_long_job_is_handed_back_at_a_stop_and_goes_on(agent: AgentProcess) -> None:
    source, clone = new_id(), new_id()
    await agent.start("jobs.rate_limit=33554432")
    async with agent.client() as client:
        create = VolumeCreate(backend="files", volume_id=source, size_bytes=96 * MIB)
        assert (await finish(client, "op-1/make/1", 1, create)).state == "done"
        content = os.urandom(MIB) * 96
        (agent.volumes / "volumes" / source).write_bytes(content)
        wanted = VolumeClone(backend="files", volume_id=clone, size_bytes=96 * MIB, source_volume_id=source)
        status = await client.post_job(request_for("op-2/clone/1", 1, wanted), 0.7)
        if status.terminal:
            pytest.skip("the file system shares data: there is no long copy here")
        status = await client.get_job("op-2/clone/1", 5, status.seq)
        assert status.progress is not None
        assert status.progress.total == 96 * MIB
        waiting = asyncio.create_task(client.get_job("op-2/clone/1", 30, 1 << 50))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        assert await agent.stop() == 0
        assert time.monotonic() - began < 20
        with contextlib.suppress(OutcomeUnknown, Undelivered):
            assert not (await asyncio.wait_for(waiting, 60)).terminal
    assert not (agent.volumes / "volumes" / clone).exists()
    await agent.start()
    async with agent.client() as client:
        assert (await finish(client, "op-2/clone/1", 1, wanted)).state == "done"
    assert (agent.volumes / "volumes" / clone).read_bytes() == content


async def test_a_rerun_waits_until_an_old_tool_is_gone(agent: AgentProcess) -> None:
    volume = new_id()
    await agent.start()
    tool = os.open(agent.state / "locks" / f"volume-{volume}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    os.fchmod(tool, 0o666)
    fcntl.flock(tool, fcntl.LOCK_EX)
    try:
        async with agent.client() as client:
            create = VolumeCreate(backend="files", volume_id=volume, size_bytes=MIB)
            status = await client.post_job(request_for("op-1/make/1", 1, create), 1)
            assert not status.terminal
            assert not (agent.volumes / "volumes" / volume).exists()
            other = VolumeCreate(backend="files", volume_id=new_id(), size_bytes=MIB)
            assert (await finish(client, "op-2/make/1", 1, other)).state == "done"
            os.close(tool)
            tool = -1
            assert (await finish(client, "op-1/make/1", 1, create)).state == "done"
    finally:
        if tool >= 0:
            os.close(tool)


async def test_it_gives_up_in_time_when_the_old_tool_stays(agent: AgentProcess) -> None:
    volume = new_id()
    await agent.start("jobs.lock_deadline_s=0.5")
    tool = os.open(agent.state / "locks" / f"volume-{volume}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    os.fchmod(tool, 0o666)
    fcntl.flock(tool, fcntl.LOCK_EX)
    async with agent.client() as client:
        create = VolumeCreate(backend="files", volume_id=volume, size_bytes=MIB)
        status = await finish(client, "op-1/make/1", 1, create)
        assert status.error is not None
        assert status.error.code == "host.busy"
        assert status.error.retry_after
    os.close(tool)


@pytest.mark.parametrize("dump", CORPUS, ids=lambda path: path.stem)
async def test_a_journal_of_an_earlier_release_is_taken_up(agent: AgentProcess, dump: Path) -> None:
    """Rows: a clone in the middle, a create not begun, one with a secret, one cancelled, one finished."""
    with sqlite3.connect(agent.state / "journal.db") as journal:
        journal.executescript(dump.read_text())
    journal.close()
    for folder in ("volumes", "partial", "snapshots"):
        (agent.volumes / folder).mkdir(parents=True)
    content = os.urandom(2 * MIB)
    (agent.volumes / "volumes" / VOLUMES["source"]).write_bytes(content)
    (agent.volumes / "partial" / VOLUMES["clone"]).write_bytes(content[:MIB] + bytes(MIB))
    (agent.volumes / "partial" / VOLUMES["unwanted"]).write_bytes(bytes(MIB))
    if os.geteuid() == 0:
        for path in (agent.volumes, *agent.volumes.rglob("*")):
            os.chown(path, 65534, 65534)
    await agent.start()
    async with agent.client() as client:
        for key, state in (
            ("op-clone/make/1", "done"),
            ("op-fresh/make/1", "done"),
            ("op-secret/make/1", "needs-secret"),
            ("op-unwanted/make/1", "cancelled"),
            ("op-finished/make/1", "done"),
        ):
            status = await client.get_job(key)
            while not status.terminal and status.state != "needs-secret":
                status = await client.get_job(key, 5, status.seq)
            assert status.state == state, (key, status)
        create = VolumeCreate(backend="files", volume_id=VOLUMES["secret"], size_bytes=MIB, encryption=LuksFormat())
        status = await finish(client, "op-secret/make/1", 1, create, volume=WireSecret.of("passphrase", b"x"))
        assert status.state == "done", status
        held = {(one.kind, one.id) for one in (await client.inventory())[0]}
        assert held == {("volume", VOLUMES[name]) for name in ("source", "clone", "fresh", "secret")}
        assert (agent.volumes / "volumes" / VOLUMES["clone"]).read_bytes() == content
        with pytest.raises(Exception, match="too late"):
            await client.cancel("op-epoch/make/1", 3)
        with pytest.raises(Exception, match="cancelled"):
            await client.post_job(request_for("op-dead/make/1", 1, create, {"volume": WireSecret.of("opaque", b"x")}))
