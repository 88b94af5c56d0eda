from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.base.errors import Conflict, Temporary
from agent.base.ids import new_id
from agent.jobs import records
from agent.jobs.errors import (
    AgentStopping,
    BadArguments,
    KeyReused,
    SecretMissing,
    StaleEpoch,
    Tombstoned,
    UnknownJob,
    UnknownKind,
)
from agent.jobs.journal import Journal
from agent.jobs.records import KEEP_EPOCHS_S
from tests.unit.agent.jobs.support import Work, create, delete, from_image, runner_at


async def test_a_job_is_run_and_its_result_kept_until_acknowledged(tmp_path: Path) -> None:
    work = Work()
    async with runner_at(tmp_path, work) as runner:
        first = await runner.accept(create())
        assert first.state in {"queued", "running"}
        status = await runner.wait_for_end("op/make/1", 60)
        assert status.state == "done"
        assert status.result is not None
        assert status.result["device_bytes"] == 1 << 20
        assert status.seq > first.seq
        assert (await runner.status("op/make/1")) == status
    async with runner_at(tmp_path, work) as runner:
        assert (await runner.status("op/make/1")).result == status.result
        assert await runner.acknowledge(["op/make/1", "unknown/x/1"]) == ["op/make/1"]
        assert await runner.acknowledge(["op/make/1"]) == []
        with pytest.raises(UnknownJob):
            await runner.status("op/make/1")
        with pytest.raises(Tombstoned, match="acknowledged"):
            await runner.accept(create())
    assert work.runs == 1


async def test_two_posts_at_once_are_one_job(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work) as runner:
        answers = await asyncio.gather(*(runner.accept(create()) for _ in range(5)))
        assert {answer.key for answer in answers} == {"op/make/1"}
        await work.begun.wait()
        work.go.set()
        assert (await runner.wait_for_end("op/make/1", 60)).state == "done"
        assert (await runner.accept(create())).state == "done"
    assert work.runs == 1


async def test_the_same_key_with_other_arguments_is_refused(tmp_path: Path) -> None:
    async with runner_at(tmp_path, Work()) as runner:
        await runner.accept(create())
        with pytest.raises(KeyReused):
            await runner.accept(create(size=2 << 20))
        with pytest.raises(KeyReused):
            await runner.accept(delete(key="op/make/1"))


async def test_a_lower_epoch_can_do_nothing(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(create(epoch=5))
        raised = await runner.accept(create(epoch=6))
        assert raised.epoch == 6
        for call in (
            runner.accept(create(epoch=5)),
            runner.accept(create("op/other/1", epoch=5)),
            runner.cancel("op/make/1", 5),
            runner.cancel("op/other/1", 5),
        ):
            with pytest.raises(StaleEpoch) as caught:
                await call
            assert (caught.value.code, caught.value.status) == ("stale-epoch", 409)
        await runner.accept(create("another/make/1", epoch=1, volume=new_id()))
    async with runner_at(tmp_path, work) as runner:
        with pytest.raises(StaleEpoch):
            await runner.accept(create("op/third/1", epoch=5))


async def test_a_post_after_its_cancel_never_begins(tmp_path: Path) -> None:
    work = Work()
    async with runner_at(tmp_path, work) as runner:
        assert (await runner.cancel("op/make/1", 2)).state == "cancelled"
        assert (await runner.status("op/make/1")).state == "cancelled"
        with pytest.raises(Tombstoned) as caught:
            await runner.accept(create(epoch=2))
        assert (caught.value.code, caught.value.status) == ("job.tombstoned", 409)
        with pytest.raises(StaleEpoch):
            await runner.accept(create(epoch=1))
        await runner.accept(create("op/make/2", epoch=2))
        assert (await runner.wait_for_end("op/make/2", 60)).state == "done"
    assert work.runs == 1


async def test_cancel_stops_a_running_job_and_removes_what_is_half_made(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(create())
        await work.begun.wait()
        await runner.cancel("op/make/1", 1)
        await runner.cancel("op/make/1", 1)
        status = await runner.wait_for_end("op/make/1", 60)
        assert status.state == "cancelled"
        assert work.abandoned == 1
        assert (await runner.cancel("op/make/1", 1)).state == "cancelled"


async def test_cancel_of_a_waiting_job_leaves_the_running_one_alone(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(create())
        await work.begun.wait()
        await runner.accept(create("op2/make/1"))
        await runner.cancel("op2/make/1", 1)
        assert (await runner.wait_for_end("op2/make/1", 60)).state == "cancelled"
        assert work.abandoned == 0
        work.go.set()
        assert (await runner.wait_for_end("op/make/1", 60)).state == "done"


async def test_a_cancel_that_was_accepted_holds_over_a_restart(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(create())
        await work.begun.wait()
    journal = Journal(tmp_path / "journal.db")
    await journal.open()
    await journal.write(lambda db: records.cancel(db, "op/make/1", 1))
    await journal.close()
    async with runner_at(tmp_path, work) as runner:
        assert (await runner.wait_for_end("op/make/1", 60)).state == "cancelled"
    assert (work.runs, work.abandoned) == (1, 1)


async def test_one_job_at_a_time_per_resource_in_order(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work) as runner:
        for number in range(1, 5):
            await runner.accept(create(f"op{number}/make/1"))
        await runner.accept(delete("op9/remove/1"))
        await work.begun.wait()
        work.go.set()
        await runner.wait_for_end("op9/remove/1", 60)
    assert work.most == 1
    assert work.order == [f"op{n}/make/1" for n in range(1, 5)] + ["op9/remove/1"]


async def test_other_resources_run_together_up_to_the_limit(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work, quick=3) as runner:
        keys = [f"op{number}/make/1" for number in range(8)]
        await asyncio.gather(*(runner.accept(create(key, volume=new_id())) for key in keys))
        async with asyncio.timeout(60):
            while work.running < 3:
                await asyncio.sleep(0.01)
        work.go.set()
        for key in keys:
            assert (await runner.wait_for_end(key, 5)).state == "done"
    assert work.most == 3


async def test_errors_reach_the_status_and_half_made_things_go_on_lasting_ones(tmp_path: Path) -> None:
    work = Work(error=Conflict(reason="There is something in the way."))
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(create())
        status = await runner.wait_for_end("op/make/1", 60)
        assert status.state == "failed"
        assert status.error is not None
        assert (status.error.code, status.error.status) == ("conflict", 409)
        assert (status.error.message, status.error.retry_after) == ("There is something in the way.", None)
        assert work.abandoned == 1

        work.error = Temporary(reason="busy", retry_after=3.0)
        await runner.accept(create("op/make/2"))
        status = await runner.wait_for_end("op/make/2", 60)
        assert status.error is not None
        assert status.error.retry_after == 3.0
        assert work.abandoned == 1

        work.error = KeyError("surprise")
        await runner.accept(create("op/make/3"))
        status = await runner.wait_for_end("op/make/3", 60)
        assert status.error is not None
        assert status.error.code == "job.defect"


async def test_bad_requests_leave_no_trace(tmp_path: Path) -> None:
    async with runner_at(tmp_path, Work()) as runner:
        with pytest.raises(UnknownKind):
            await runner.accept(create().model_copy(update={"kind": "volume.paint"}))
        with pytest.raises(UnknownKind):
            await runner.accept(create().model_copy(update={"version": 9}))
        with pytest.raises(BadArguments, match="volume_id"):
            await runner.accept(create().model_copy(update={"args": {"backend": "files", "size_bytes": 1}}))
        with pytest.raises(SecretMissing, match="volume"):
            await runner.accept(create(secret=b"x").model_copy(update={"secrets": {}}))
        with pytest.raises(UnknownJob):
            await runner.status("op/make/1")


async def test_a_long_poll_returns_on_change_and_on_time(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(create())
        await work.begun.wait()
        now = await runner.status("op/make/1")
        same = await runner.wait_for_change("op/make/1", now.seq, 0.05)
        assert same.seq == now.seq
        polls = [asyncio.create_task(runner.wait_for_change("op/make/1", now.seq, 10)) for _ in range(3)]
        await asyncio.sleep(0.02)
        assert not any(poll.done() for poll in polls)
        work.go.set()
        assert {(await poll).state for poll in polls} == {"done"}
        with pytest.raises(UnknownJob):
            await runner.wait_for_change("none/x/1", 0, 1)


async def test_checkpoint_and_progress_survive_a_restart(tmp_path: Path) -> None:
    work = Work()
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(from_image())
        await work.begun.wait()
        status = await runner.wait_for_change("op3/convert/1", (await runner.status("op3/convert/1")).seq, 5)
        assert status.progress is not None
        assert status.progress.phase == "copy"
        before = status.seq
    work.begun.clear()
    async with runner_at(tmp_path, work) as runner:
        await work.begun.wait()
        assert work.seen[-1].checkpoint == {"done": 5}
        assert (await runner.status("op3/convert/1")).seq > before
        work.go.set()
        assert (await runner.wait_for_end("op3/convert/1", 60)).state == "done"
    assert work.runs == 2


async def test_a_job_with_secrets_waits_for_them_after_a_restart(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(create(secret=b"canary-1234"))
        await work.begun.wait()
        assert work.seen[0].secret("volume").value() == b"canary-1234"
    assert not [path for path in tmp_path.glob("journal.db*") if b"canary-1234" in path.read_bytes()]
    assert not [path for path in tmp_path.glob("journal.db*") if b"Y2FuYXJ5LTEyMzQ" in path.read_bytes()]
    work.held = False
    async with runner_at(tmp_path, work) as runner:
        assert (await runner.wait_for_end("op/make/1", 60)).state == "needs-secret"
        assert work.runs == 1
        await runner.accept(create(secret=b"canary-1234"))
        assert (await runner.wait_for_end("op/make/1", 60)).state == "done"
        assert work.seen[-1].secrets["volume"].value() == b"canary-1234"
        assert not runner._entries["op/make/1"].secrets


async def test_a_waiting_job_can_be_cancelled_without_its_secret(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(create(secret=b"x"))
        await work.begun.wait()
    async with runner_at(tmp_path, work) as runner:
        await runner.cancel("op/make/1", 1)
        assert (await runner.wait_for_end("op/make/1", 60)).state == "cancelled"
        assert work.abandoned == 1


async def test_stop_lets_quick_jobs_end_and_hands_the_rest_back(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(create())
        await runner.accept(from_image("op3/convert/1", new_id()))
        await work.begun.wait()
        asyncio.get_running_loop().call_later(0.1, work.go.set)
        await runner.stop(5)
        assert (await runner.status("op/make/1")).state == "done"
        with pytest.raises(AgentStopping):
            await runner.accept(create("op5/make/1"))


async def test_jobs_of_a_kind_that_is_gone_fail_after_a_restart(tmp_path: Path) -> None:
    work = Work(held=True)
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(create())
        await work.begun.wait()
    journal = Journal(tmp_path / "journal.db")
    await journal.open()
    await journal.write(lambda db: db.execute("UPDATE jobs SET version = 77").rowcount)
    await journal.close()
    async with runner_at(tmp_path, work) as runner:
        status = await runner.status("op/make/1")
        assert status.state == "failed"
        assert status.error is not None
        assert status.error.code == "job.unknown-kind"


async def test_old_epochs_and_tombstones_are_forgotten(tmp_path: Path) -> None:
    work = Work()
    async with runner_at(tmp_path, work) as runner:
        await runner.cancel("old/make/1", 3)
        await runner._journal.write(
            lambda db: [
                db.execute(f"UPDATE {table} SET {column} = {column} - {KEEP_EPOCHS_S + 10}").rowcount
                for table, column in (("epochs", "updated_at"), ("tombstones", "created_at"))
            ]
        )
    async with runner_at(tmp_path, work) as runner:
        await runner.accept(create("old/make/1", epoch=1))
        assert (await runner.wait_for_end("old/make/1", 60)).state == "done"


async def test_a_finished_job_that_left_memory_is_read_from_the_journal(tmp_path: Path) -> None:
    async with runner_at(tmp_path, Work()) as runner:
        await runner.accept(create())
        await runner.wait_for_end("op/make/1", 60)
        runner._entries.clear()
        assert (await runner.status("op/make/1")).state == "done"
        assert (await runner.wait_for_change("op/make/1", 0, 1)).state == "done"
        assert (await runner.accept(create())).state == "done"
        assert (await runner.cancel("op/make/1", 1)).state == "done"
        assert [status.key for status in await runner.listing()] == ["op/make/1"]


async def test_a_job_whose_poster_was_gone_begins_when_it_is_asked_for(tmp_path: Path) -> None:
    work = Work()
    async with runner_at(tmp_path, work) as runner:
        posting = asyncio.create_task(runner.accept(create()))
        await asyncio.sleep(0)
        posting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await posting
        assert (await runner.wait_for_end("op/make/1", 60)).state == "done"
    assert work.runs == 1
