"""Jobs on shared back ends go on only while their coordinator is heard, and never after a restart by themselves."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from agent.jobs.journal import Journal
from agent.jobs.kinds import Context
from agent.wire.errors import JobTooLate
from agent.wire.jobs import JobRequest
from tests.unit.agent.jobs.support import Work, create, runner_at


def leased(lease_s: float = 0.6, key: str = "op/make/1", sent: float = 0.0) -> JobRequest:
    return create(key).model_copy(update={"lease_s": lease_s, "sent_at": time.time() + sent})


async def test_a_job_whose_coordinator_falls_silent_is_given_up_untouched(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(leased())
        await work.begun.wait()
        entry = runner._entries["op/make/1"]
        async with asyncio.timeout(60):
            await entry.changed(entry.record.seq, 10)
        status = await runner.status("op/make/1")
        assert status.state == "fenced"
        assert status.error is not None
        assert status.error.code == "job.fenced"
        assert work.abandoned == 0
        assert work.seen[0].cancel.is_set()
        assert await runner.acknowledge(["op/make/1"]) == ["op/make/1"]


async def test_calls_about_it_keep_it_going(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(leased(5.0))
        await work.begun.wait()
        deadline = time.monotonic() + 11
        while time.monotonic() < deadline:
            status = await runner.wait_for_change("op/make/1", 1 << 60, 0.2)
            assert status.state == "running"
        work.go.set()
        async with asyncio.timeout(60):
            while (await runner.status("op/make/1")).state != "done":
                await asyncio.sleep(0.01)


async def test_one_that_falls_silent_while_a_cancelled_job_is_cleared_away_is_fenced_too(tmp_path: Path) -> None:
    work, clearing = Work(held=True), asyncio.Event()

    async def abandon(context: Context, args: object) -> None:
        clearing.set()
        await asyncio.Event().wait()

    work.abandon = abandon  # type: ignore[method-assign]
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(leased(1.0))
        await work.begun.wait()
        entry = runner._entries["op/make/1"]
        await runner.cancel("op/make/1", 1)
        await clearing.wait()
        async with asyncio.timeout(60):
            while not entry.terminal:
                await asyncio.sleep(0.01)
        assert (await runner.status("op/make/1")).state == "fenced"


async def test_after_a_restart_it_is_not_resumed(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(leased(60))
        await runner.accept(create("op2/make/1", volume="22222222-2222-4333-8444-555555555555"))
        await work.begun.wait()
    again = Work()
    async with runner_at(tmp_path, again) as runner:
        assert (await runner.status("op/make/1")).state == "fenced"
        assert (await runner.accept(leased(60))).state == "fenced"
        assert (await runner.wait_for_end("op2/make/1", 60)).state == "done"
        assert (await runner.accept(leased(60, "op/make/2"))).state in {"queued", "running"}
        assert (await runner.wait_for_end("op/make/2", 60)).state == "done"
    assert again.order == ["op2/make/1", "op/make/2"]
    assert again.abandoned == 0


@pytest.mark.parametrize("sent", [-61.0, 61.0])
async def test_a_post_that_lay_about_is_refused_and_not_written(tmp_path: Path, sent: float) -> None:
    work = Work()
    async with runner_at(tmp_path, work) as runner:
        with pytest.raises(JobTooLate):
            await runner.accept(leased(60, sent=sent))
    journal = Journal(tmp_path / "journal.db")
    await journal.open()
    assert await journal.read(lambda db: db.execute("SELECT count(*) FROM jobs").fetchone()[0]) == 0
    await journal.close()
