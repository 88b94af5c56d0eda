"""A host's attach and detach beside others of the same volume: its status is what all that is left calls for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Row, update

from agent.base.errors import Conflict
from coordinator.operations.attach_host import accept_attach, accept_detach, attach_workflow, detach_workflow
from coordinator.operations.attachment_errors import AlreadyAttached
from coordinator.operations.external_attachments import end
from coordinator.operations.older_attach import Target, attach
from coordinator.operations.workflow import Workflow
from coordinator.state import attachments, volumes
from coordinator.state.database import Database
from coordinator.state.operations import Operation
from coordinator.state.schema import prepare
from coordinator.state.tables.volumes import volumes as table
from coordinator.state.transition import move
from tests.support import databases
from tests.unit.coordinator.operations.support import REQUESTER
from tests.unit.coordinator.operations.test_transports import KEYS, host, volume

ATTACH, DETACH = attach_workflow(KEYS), detach_workflow(KEYS)
BROKEN = Conflict(reason="the device is held")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = databases.fresh(tmp_path / "state.db")
    database.write_now(prepare)
    yield database
    database.close()


def of_several(conn: Connection, *, several: bool = True) -> str:
    host(conn, "home")
    made = volume(conn)
    conn.execute(update(table).where(table.c.id == made).values(multiattach=several))
    return made


def begun(db: Database, volume_id: str) -> tuple[Operation, str]:
    """A host's attach that is under way."""
    operation, row = db.write_now(lambda conn: accept_attach(conn, REQUESTER, volume_id, "home"))
    device = {"attachment_id": row.id, "device": "/dev/loop7", "raw_device": "/dev/loop7", "raw": False, "diskseq": 9}
    return dataclasses.replace(operation, steps={"apply": {"state": "done", "result": {"attached": [device]}}}), row.id


def other(db: Database, volume_id: str, server: str = "s1") -> Row[Any]:
    def share(conn: Connection) -> Row[Any]:
        return attach(conn, REQUESTER, volumes.get(conn, volume_id), Target(server, "there"))

    return db.write_now(share)


def finish(db: Database, workflow: Workflow, operation: Operation) -> None:
    db.write_now(lambda conn: workflow.finished(conn, operation))


def unclear(db: Database, workflow: Workflow, operation: Operation) -> None:
    told = workflow.attention
    assert told is not None
    db.write_now(lambda conn: told(conn, operation, "why"))


def held(db: Database, volume_id: str) -> tuple[Operation, str]:
    """Attached by a host, and its detach accepted by none yet."""
    operation, mine = begun(db, volume_id)
    finish(db, ATTACH, operation)
    return operation, mine


def detaching(db: Database, attachment_id: str) -> Operation:
    return db.write_now(lambda conn: accept_detach(conn, REQUESTER, attachment_id))


def ended(db: Database, row: Row[Any]) -> None:
    db.write_now(lambda conn: end(conn, REQUESTER, row))


def shown(db: Database, volume_id: str) -> tuple[str, str]:
    row = db.read_now(lambda conn: volumes.get(conn, volume_id))
    return row.status, row.attach_status


def test_alone_it_comes_and_goes(db: Database) -> None:
    known = db.write_now(of_several)
    _, mine = held(db, known)
    assert shown(db, known) == ("in-use", "attached")
    finish(db, DETACH, detaching(db, mine))
    assert shown(db, known) == ("available", "detached")


def test_what_could_not_be_extended_meanwhile_is_detached(db: Database) -> None:
    known = db.write_now(of_several)
    _, mine = held(db, known)
    for event in ("extend_attached", "extend_failed"):
        db.write_now(lambda conn, event=event: move(conn, "volume", known, event))
    finish(db, DETACH, detaching(db, mine))
    assert shown(db, known) == ("available", "detached")


def test_a_second_one_who_is_there_first_does_not_stop_the_first(db: Database) -> None:
    known = db.write_now(of_several)
    operation, mine = begun(db, known)
    other(db, known)
    assert shown(db, known)[0] == "in-use"
    finish(db, ATTACH, operation)
    assert db.read_now(lambda conn: attachments.get(conn, mine).attach_status) == "attached"
    assert shown(db, known) == ("in-use", "attached")


def test_a_host_that_detaches_leaves_the_volume_to_the_others(db: Database) -> None:
    known = db.write_now(of_several)
    _, mine = held(db, known)
    row = other(db, known)
    finish(db, DETACH, detaching(db, mine))
    assert shown(db, known) == ("in-use", "attached")
    ended(db, row)
    assert shown(db, known) == ("available", "detached")


def test_others_who_end_meanwhile_do_not_leave_it_in_use(db: Database) -> None:
    known = db.write_now(of_several)
    _, mine = held(db, known)
    one, two = other(db, known), other(db, known, "s2")
    operation = detaching(db, mine)
    ended(db, one)
    assert shown(db, known)[0] == "in-use"
    ended(db, two)
    finish(db, DETACH, operation)
    assert shown(db, known) == ("available", "detached")


def test_an_attach_that_failed_frees_it_for_nobody_while_another_has_it(db: Database) -> None:
    known = db.write_now(of_several)
    operation, _ = begun(db, known)
    row = other(db, known)
    db.write_now(lambda conn: ATTACH.failed(conn, operation, BROKEN))
    assert shown(db, known) == ("in-use", "attached")
    ended(db, row)
    assert shown(db, known) == ("available", "detached")


def test_what_could_be_neither_done_nor_undone_is_said(db: Database) -> None:
    known = db.write_now(of_several)
    operation, mine = begun(db, known)
    unclear(db, ATTACH, operation)
    row = db.read_now(lambda conn: volumes.get(conn, known))
    assert (row.status, row.attention) == ("available", "why")
    kept = db.read_now(lambda conn: attachments.get(conn, mine))
    assert (kept.attach_status, kept.attention) == ("error_attaching", "why")
    finish(db, DETACH, detaching(db, mine))
    assert shown(db, known) == ("available", "detached")


def test_a_detach_that_failed_can_be_tried_again(db: Database) -> None:
    known = db.write_now(of_several)
    _, mine = held(db, known)
    operation = detaching(db, mine)
    db.write_now(lambda conn: DETACH.failed(conn, operation, BROKEN))
    assert shown(db, known)[0] == "in-use"
    operation = detaching(db, mine)
    unclear(db, DETACH, operation)
    row = db.read_now(lambda conn: volumes.get(conn, known))
    assert (row.status, row.attention) == ("in-use", "why")


def test_nobody_takes_what_a_host_is_attaching_or_may_hold(db: Database) -> None:
    known = db.write_now(lambda conn: of_several(conn, several=False))
    operation, mine = begun(db, known)
    with pytest.raises(AlreadyAttached, match=mine):
        other(db, known)
    assert shown(db, known)[0] == "attaching"
    unclear(db, ATTACH, operation)
    with pytest.raises(AlreadyAttached, match="error_attaching"):
        other(db, known)
