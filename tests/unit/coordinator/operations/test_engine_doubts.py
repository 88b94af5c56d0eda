"""The engine where something is not known (yet): who has ended, which hosts there are, what a wait would have said."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from agent.base.errors import Invalid, NotFound
from agent.wire.client import AgentClient
from agent.wire.jobs import JobStatus, VolumeExtend
from coordinator.operations import evict_host, members
from coordinator.operations.engine import Engine
from coordinator.operations.errors import Cancelled, WaitedTooLong
from coordinator.operations.image_streams import ImageStreams, StreamLost
from coordinator.operations.jobs import Conversation
from coordinator.operations.new_volume import accept_volume
from coordinator.operations.slots import Slot
from coordinator.operations.workflow import JobCall, JobStep, LocalStep, Result, Step, WaitStep, Workflow, Workflows
from coordinator.state import enrolment, fleet, operations, outward
from coordinator.state.errors import CommitInDoubt, DatabaseUnavailable, LeaseLost
from coordinator.state.operations import Operation
from tests.unit.coordinator.operations.support import REQUESTER, Hosts, Site, new_engine, site
from tests.unit.coordinator.operations.test_engine_faults import NEW, accepted, ended
from tests.unit.coordinator.operations.test_evict_host import attached, evict
from tests.unit.coordinator.operations.test_volume_workflows import create

WAITS = Operation(
    id="o1", kind="test", version=1, resource_type="thing", resource_id="t1", project_id="p1", user_id="u1",
    request_id="r1", args={}, steps={}, state="running", epoch=1, owner="c1",
)  # fmt: skip


async def waited(here: Site, *steps: Step) -> Operation:
    """What becomes of an operation of these steps."""
    workflow = Workflow("test", 1, steps, lambda *_: None, lambda *_: None)
    engine = Engine(here.db, here.hosts, Workflows((workflow,)), owner="c1", exclusive=True)
    await here.db.write(lambda conn: operations.add(conn, WAITS))
    engine.start(WAITS)
    last = await engine.wait(WAITS.id, 60)
    await engine.close(0.2)
    assert last is not None
    return last


async def test_a_wait_that_the_database_cut_short_is_taken_up_again(tmp_path: Path) -> None:
    tries: list[str] = []

    async def wait(operation: Operation) -> Result | None:
        tries.append(operation.id)
        if len(tries) == 1:
            raise DatabaseUnavailable(reason="terminating connection due to administrator command")
        return {"heard": True}

    async with site(tmp_path) as here:
        last = await waited(here, WaitStep("wait", wait))
        assert (last.state, last.results["wait"], len(tries)) == ("done", {"heard": True}, 2)


async def test_a_defect_in_an_undo_ends_the_operation_too(tmp_path: Path) -> None:
    def undo(conn: Connection, operation: Operation) -> None:
        raise WaitedTooLong(host="host-a", seconds=9)

    async def refused(operation: Operation) -> Result | None:
        raise Invalid(reason="It can not be.")

    async with site(tmp_path) as here:
        last = await waited(here, LocalStep("one", lambda *_: None, undo=undo), WaitStep("two", refused))
        assert last.error is not None
        assert (last.state, last.error["code"]) == ("needs-attention", "operation.undo-failed")
        assert "It can not be." in last.error["message"]
        assert "host-a" in last.error["message"]
        shown = outward.body(last.error)["message"]
        assert shown == last.error["message"].replace("host-a", "(host)")


@pytest.mark.parametrize("defect", [NotFound(noun="Volume", id="v1"), KeyError("v1")])
async def test_an_undo_that_raises_loses_neither_the_first_cause_nor_what_was_done(
    tmp_path: Path, defect: Exception
) -> None:
    """The step after a job fails in the transaction that stores the job's result, and so does the job's undo."""
    broken: list[Exception] = [defect]

    def refused(conn: Connection, operation: Operation) -> None:
        raise Invalid(reason="It can not be.")

    def undo(conn: Connection, operation: Operation) -> Any:
        if broken:
            raise broken[0]
        assert made.undo is not None
        return made.undo(conn, operation)

    async with site(tmp_path) as here:
        operation, row = await here.db.write(lambda conn: accept_volume(conn, REQUESTER, here.keys, NEW))
        workflow = here.engine.workflows.of(operation)
        made = workflow.step("make")
        assert isinstance(made, JobStep)
        undone: list[str] = []
        steps = (
            *(replace(made, undo=undo) if step is made else step for step in workflow.steps),
            LocalStep("between", lambda *_: None, undo=lambda *_: undone.append("between")),
            LocalStep("refused", refused),
        )
        known = Workflows((replace(workflow, steps=steps),))
        engine = Engine(here.db, here.hosts, known, owner="c1", exclusive=True)
        engine.start(operation)
        last = await engine.wait(operation.id, 60)
        assert last is not None
        assert last.error is not None
        assert (last.state, last.error["code"]) == ("needs-attention", "operation.undo-failed")
        assert "It can not be." in last.error["message"]
        assert f"at step {made.name}" in last.error["message"]
        assert last.results[made.name] is not None
        broken.clear()
        await engine.retry(operation.id)
        last = await engine.wait(operation.id, 60)
        await engine.close(0.2)
        assert last is not None
        assert last.state == "failed"
        assert undone == ["between"], "once"
        assert not [path for path in tmp_path.rglob(row.id) if path.is_file()]
        assert not [one for one in await here.db.read(fleet.pools_of) if one.provisioned_bytes]


async def test_bytes_flow_once_though_their_wait_is_taken_up_again() -> None:
    flowed: list[str] = []

    async def transfer(ref: Any, operation: Operation) -> Result:
        flowed.append(operation.id)
        return {"size": 3}

    async def silent(ref: Any, operation: Operation) -> Result:
        await asyncio.Event().wait()
        return {}

    class Rows:
        async def read(self, fn: Any) -> None:
            return None

    streams = ImageStreams(Rows(), object())  # type: ignore[arg-type]
    with streams.offer(transfer) as stream:
        of_it = replace(WAITS, args={"stream": stream.name})
        assert [await streams.carry(of_it) for _ in range(2)] == [{"size": 3}] * 2
        assert flowed == [WAITS.id]
    with streams.offer(silent) as stream:
        cut = asyncio.ensure_future(streams.carry(replace(WAITS, args={"stream": stream.name})))
        await stream.started.wait()
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
        with pytest.raises(StreamLost):
            await streams.carry(replace(WAITS, args={"stream": stream.name}))


async def test_an_end_whose_commit_was_not_heard_of_is_told(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        write = here.db.write

        async def unheard(fn: Any, **more: Any) -> Any:
            value = await write(fn, **more)
            if isinstance(value, tuple) and getattr(value[0], "state", "") == "done":
                raise CommitInDoubt(reason="server closed the connection unexpectedly")
            return value

        operation = await accepted(here)
        here.db.write = unheard  # type: ignore[method-assign]
        here.engine.start(operation)
        assert (await ended(here, operation, 60)).state == "done"


async def test_an_end_elsewhere_is_seen_though_its_news_were_lost(tmp_path: Path) -> None:
    """It was at work here as its end was asked for, and another coordinator has taken it over since."""
    async with site(tmp_path) as here:
        engine = new_engine(here.db, here.hosts, here.keys)
        engine._exclusive = False
        operation, gone = await accepted(here), asyncio.Event()
        task = engine._tasks[operation.id] = asyncio.create_task(gone.wait())  # type: ignore[arg-type]
        asking = asyncio.create_task(engine.wait(operation.id, 3600))
        while not engine.watchers.watched(operation.id):
            await asyncio.sleep(0.01)
        await here.db.write(
            lambda conn: operations.finish(conn, operations.finish(conn, operation, "fail"), "undone", {"code": "x"})
        )
        del engine._tasks[operation.id]
        gone.set()
        await task
        last = await asyncio.wait_for(asking, 60)
        assert last is not None
        assert last.state == "failed"


class Stubborn:
    """A host whose job takes its time to stop; it counts what it is told."""

    def __init__(self) -> None:
        self.cancels, self.looks = 0, 0

    def status(self, state: str) -> JobStatus:
        return JobStatus(key="o1/grow/1", epoch=1, kind="volume.extend", state=state, seq=self.looks)

    async def post_job(self, request: Any, wait: float) -> JobStatus:
        return self.status("running")

    async def cancel(self, key: str, epoch: int) -> JobStatus:
        self.cancels += 1
        return self.status("cancelled" if self.cancels > 50 else "running")

    async def get_job(self, key: str, wait: float, after: int) -> JobStatus:
        await asyncio.sleep(0.01)
        self.looks += 1
        return self.status("cancelled" if self.looks > 3 else "running")


async def test_a_job_is_told_once_to_stop_and_then_waited_for() -> None:
    host, cancelled = Stubborn(), asyncio.Event()
    cancelled.set()

    class One(Hosts):
        def client(self, host_id: str) -> AgentClient | None:
            return host  # type: ignore[return-value]

    volume_id = "00000000-0000-4000-8000-000000000001"
    job = VolumeExtend(backend="files", volume_id=volume_id, size_bytes=512, encrypted=False)
    call = JobCall("host-a", job)
    async with Slot(asyncio.Semaphore(1)) as slot:
        talk = Conversation(One(), object(), cancelled, slot)  # type: ignore[arg-type]
        with pytest.raises(Cancelled):
            await talk.run(WAITS, "o1/grow/1", call, may_move=False)
    assert host.cancels == 1


async def test_a_host_that_was_enrolled_elsewhere_a_moment_ago_is_waited_for(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        wire = here.hosts.wires.pop("host-a")
        asked, client = asyncio.Event(), here.hosts.client

        def late(host_id: str) -> AgentClient | None:
            asked.set()
            return client(host_id)

        here.hosts.client = late  # type: ignore[method-assign]
        operation = await accepted(here)
        here.engine.start(operation)
        await asked.wait()
        here.hosts.wires["host-a"] = wire
        assert (await ended(here, operation, 60)).state == "done"
        assert [request.key for request in wire.posted] == [f"{operation.id}/make/1"]


async def test_who_lost_the_lease_lets_no_other_host_serve_the_volume(tmp_path: Path) -> None:
    async with site(tmp_path, ("host-a", "host-b"), cluster="c1") as here:
        row, known = await create(here), here.engine.workflows.known
        paused = replace(WAITS, resource_type="volume", resource_id=row.id, kind="extend_volume", version=3)

        def taken_by_another(conn: Connection) -> None:
            operations.add(conn, paused)
            operations.claim(conn, "c2", all_of_them=True, known=known)

        await here.db.write(taken_by_another)
        with pytest.raises(LeaseLost):
            await here.db.write(lambda conn: members.taken_over(conn, paused, row.host_id))


async def test_an_attachment_that_ends_by_itself_does_not_keep_a_host_from_being_evicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(conn: Connection, requester: Any, attachment_id: str) -> Operation:
        raise NotFound(noun="Attachment", id=attachment_id)

    async with site(tmp_path) as here:
        row = await create(here)
        await here.db.write(lambda conn: attached(conn, row.id, "host-a", None))
        monkeypatch.setattr(evict_host, "accept_detach", gone)
        await evict(here, "host-a")
        assert await here.db.read(lambda conn: enrolment.host(conn, "host-a")) is None
