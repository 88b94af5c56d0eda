"""The engine when things go wrong around it: nothing done twice, nobody waiting for ever, nothing given up early."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from agent.base.errors import Temporary
from coordinator.operations.advance import give_up_undo
from coordinator.operations.attach_host import accept_attach, accept_detach
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.state import attachments, fleet, issues, operations, volumes
from coordinator.state.errors import CommitInDoubt, DatabaseUnavailable
from coordinator.state.operations import Operation
from tests.unit.coordinator.operations.support import REQUESTER, Site, site

NEW = NewVolume(size=1)


class Busy(Temporary):
    code = "test.busy"
    sentence = "A tool is still at work on it."
    retry_after = 0.1


async def accepted(here: Site) -> Operation:
    operation, _ = await here.db.write(lambda conn: accept_volume(conn, REQUESTER, here.keys, NEW))
    return operation


async def ended(here: Site, operation: Operation, seconds: float = 20) -> Operation:
    last = await here.engine.wait(operation.id, seconds)
    assert last is not None
    return last


async def test_a_cancelled_operation_has_patience_with_its_undo(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        wire = here.hosts.wires["host-a"]
        call, busy_until = wire.call, 0.0

        async def busy(method: str, path: str, *, body: Any = None, **more: Any) -> Any:
            if path == "/v1/jobs" and method == "POST" and ".undo/" in body["key"] and time.monotonic() < busy_until:
                raise Busy
            return await call(method, path, body=body, **more)

        wire.call = busy  # type: ignore[method-assign]
        operation = dataclasses.replace(await accepted(here), cancel_requested=True)
        busy_until = time.monotonic() + 0.8
        here.engine.start(operation)
        assert (await ended(here, operation)).state == "cancelled"


async def test_a_database_that_fails_while_a_host_is_away_makes_no_second_job(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        wire, write = here.hosts.wires["host-a"], here.db.write

        async def failing(fn: Any, **more: Any) -> Any:
            if "host-a" in here.hosts.away:
                here.hosts.away.clear()
                raise DatabaseUnavailable(reason="database or disk is full")
            return await write(fn, **more)

        operation = await accepted(here)
        here.db.write = failing  # type: ignore[method-assign]
        wire.lose_answers = 1
        wire.held = asyncio.Event()
        here.engine.start(operation)
        await wire.arrived.wait()
        here.hosts.away.add("host-a")
        wire.held.set()
        assert (await ended(here, operation)).state == "done"
        assert {request.key for request in wire.posted} == {f"{operation.id}/make/1"}


async def test_a_step_whose_commit_was_not_heard_of_is_not_done_twice(tmp_path: Path) -> None:
    """The database dies as it commits that a place was found, and is away for a while."""
    async with site(tmp_path) as here:
        write, read, looks = here.db.write, here.db.read, [0, 0]

        async def unheard(fn: Any, **more: Any) -> Any:
            value = await write(fn, **more)
            if not looks[0] and isinstance(value, tuple) and "place" in value[0].results:
                looks[0] = 1
                raise CommitInDoubt(reason="server closed the connection unexpectedly")
            return value

        async def away(fn: Any) -> Any:
            if looks[0] and looks[1] < 3:
                looks[1] += 1
                raise DatabaseUnavailable(reason="the server is starting up")
            return await read(fn)

        operation = await accepted(here)
        here.db.write, here.db.read = unheard, away  # type: ignore[method-assign]
        here.engine.start(operation)
        async with asyncio.timeout(120):  # it must look until it can
            while looks[1] < 3:
                await asyncio.sleep(0.01)
        here.db.read = read  # type: ignore[method-assign]
        assert (await ended(here, operation)).state == "done"
        row = await here.db.read(lambda conn: volumes.get(conn, operation.resource_id))
        promised = await here.db.read(lambda conn: {one.id: one.provisioned_bytes for one in fleet.pools_of(conn)})
        assert {name: size for name, size in promised.items() if size} == {row.pool_id: row.device_bytes}


async def test_two_who_wait_both_hear_of_the_end(tmp_path: Path) -> None:
    """The second comes after the end was stored, and before it was told."""
    async with site(tmp_path) as here:
        operation = await accepted(here)
        first = here.engine.watchers.ended(operation.id)
        await here.db.write(
            lambda conn: operations.finish(conn, operations.finish(conn, operation, "fail"), "undone", {"code": "x"})
        )
        second = await here.engine.wait(operation.id, 60)
        assert second is not None
        assert (await asyncio.wait_for(first, 60)).state == second.state == "failed"


async def test_what_is_started_again_before_its_task_has_ended_goes_on(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        wire = here.hosts.wires["host-a"]
        wire.held = asyncio.Event()
        operation = await accepted(here)
        here.engine.start(operation)
        await wire.arrived.wait()
        known = here.engine.workflows.known
        (again,) = await here.db.write(lambda conn: operations.claim(conn, "c1", all_of_them=True, known=known))
        here.engine.start(again)
        wire.held.set()
        last = await ended(here, operation)
        assert (last.state, last.epoch) == ("done", 2)


async def test_an_epoch_that_a_host_has_seen_passed_is_passed(tmp_path: Path) -> None:
    """The database was restored from a backup: the host knows of a higher epoch than the row does."""
    async with site(tmp_path) as here:
        client = here.hosts.client("host-a")
        assert client is not None
        operation = await accepted(here)
        await client.cancel(f"{operation.id}/other/1", 6)
        here.engine.start(operation)
        last = await ended(here, operation)
        assert last.state == "done"
        assert last.epoch > 6


async def test_waiting_for_a_host_is_an_issue_with_its_age(tmp_path: Path) -> None:
    async with site(tmp_path, away_deadline_s=30.0) as here:
        wire = here.hosts.wires["host-a"]
        wire.held = asyncio.Event()
        operation = await accepted(here)
        here.engine.start(operation)
        await wire.arrived.wait()
        back = asyncio.Event()

        async def reachable(host_id: str, timeout: float) -> bool:
            if timeout <= 1.0:
                return False
            await back.wait()
            return True

        here.hosts.reachable = reachable  # type: ignore[method-assign]
        wire.lose_answers = 1
        wire.held.set()
        async with asyncio.timeout(60):
            while not (rows := await here.db.read(issues.listing)):
                await asyncio.sleep(0.01)
        (row,) = rows
        assert (row.code, row.resource_id) == ("operation.waiting", operation.id)
        assert "host-a" in row.sentence
        assert f"brickyard operation show {operation.id}" in row.remedy
        assert row.project_id == "p1"
        back.set()
        assert (await ended(here, operation)).state == "done"
        assert not await here.db.read(issues.listing)


async def test_an_attachment_that_could_be_neither_made_nor_undone_can_be_detached(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        made, row = await here.engine.submit(lambda conn: accept_volume(conn, REQUESTER, here.keys, NEW))
        await ended(here, made)
        operation, attachment = await here.db.write(lambda conn: accept_attach(conn, REQUESTER, row.id, "host-a"))

        def give_up(conn: Connection) -> None:
            workflow = here.engine.workflows.of(operation)
            failed = operations.finish(conn, operation, "fail", {"code": "x"})
            give_up_undo(conn, workflow, failed, "apply", Busy())

        await here.db.write(give_up)
        states = await here.db.read(
            lambda conn: (volumes.get(conn, row.id).status, attachments.get(conn, attachment.id).attach_status)
        )
        assert states == ("available", "error_attaching")
        detach, _ = await here.engine.submit(lambda conn: (accept_detach(conn, REQUESTER, attachment.id), None))
        last = await ended(here, detach)
        assert (await here.db.read(lambda conn: volumes.get(conn, row.id))).status == "available", last.error
