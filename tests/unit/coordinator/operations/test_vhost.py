"""A volume for a guest of its own host by vhost: who asks for it gets it, and who can not have it is told why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError, Invalid
from agent.base.ids import new_id
from agent.wire.jobs import LOCAL_GUESTS, ExportApply
from coordinator.operations import older_attach, transports
from coordinator.operations.exports import export_call
from coordinator.operations.external_attachments import Wanted, connect, end, reserve
from coordinator.operations.transports import NoVhost, VhostElsewhere
from coordinator.state import attachments, volumes
from coordinator.state.database import Database
from tests.unit.coordinator.operations import test_transports
from tests.unit.coordinator.operations.support import REQUESTER
from tests.unit.coordinator.operations.test_transports import KEYS, site

db = test_transports.db
GUEST = {"host": "home", "vhost": True}
OFFERED = ("local", "iscsi", "vhost")


def made(db: Database, protocols: tuple[str, ...] = OFFERED, **more: Any) -> str:
    def change(conn: Connection) -> str:
        known = site(conn, protocols)
        volumes.set_values(conn, known, **more)
        return known

    return db.write_now(change)


def asked(db: Database, known: str, connector: Mapping[str, Any] = GUEST) -> Row[Any]:
    wanted = Wanted(known, instance_id=new_id(), connector=connector)
    return db.write_now(lambda conn: reserve(conn, REQUESTER, volumes.get(conn, known), wanted)[0])


def told(db: Database, known: str) -> ExportApply:
    call = db.write_now(lambda conn: export_call(conn, KEYS, volumes.get(conn, known)))
    assert call is not None
    assert isinstance(call.args, ExportApply)
    assert not call.secrets
    return call.args


def test_who_asks_for_it_gets_an_endpoint_and_who_does_not_stays_local(db: Database) -> None:
    known = made(db)
    row = asked(db, known)
    assert (row.transport, row.initiator, row.attached_host) == ("vhost", LOCAL_GUESTS, "home")
    (one,) = told(db, known).wanted
    assert (one.attachment_id, one.protocol, one.initiator, one.mode, one.auth) == (
        row.id, "vhost", LOCAL_GUESTS, "rw", "none",
    )  # fmt: skip
    again, work = db.write_now(lambda conn: connect(conn, REQUESTER, attachments.get(conn, row.id), GUEST))
    assert (again.id, again.transport) == (row.id, "vhost")
    assert work is not None
    assert db.write_now(lambda conn: end(conn, REQUESTER, attachments.get(conn, row.id))) is not None
    assert told(db, known).wanted == ()


@pytest.mark.parametrize("connector", [{"host": "home"}, {"host": "home", "vhost": False}])
def test_without_the_word_nothing_is_different(db: Database, connector: dict[str, Any]) -> None:
    row = asked(db, made(db), connector)
    assert row.transport is None
    assert row.connection_info["driver_volume_type"] == "local"


@pytest.mark.parametrize(
    ("protocols", "asks", "error", "says"),
    [
        (OFFERED, {"host": "away"}, VhostElsewhere, "guests of host away can not reach it"),
        (OFFERED, {"host": "compute7"}, VhostElsewhere, "lies on host home"),
        (("local", "iscsi"), {}, NoVhost, "back end files does not offer it"),
        (OFFERED, {"mode": "ro"}, NoVhost, "could not refuse its writes"),
        (OFFERED, {"vhost": "yes"}, Invalid, "Value: yes. It is one of true, false."),
        (OFFERED, {"vhost": 1}, Invalid, "Value: 1."),
    ],
)
def test_who_can_not_have_it_is_told_and_nothing_changes(
    db: Database, protocols: tuple[str, ...], asks: dict[str, Any], error: type[BrickyardError], says: str
) -> None:
    known = made(db, protocols)
    with pytest.raises(error, match=says) as caught:
        asked(db, known, {**GUEST, **asks})
    assert caught.value.status == (409 if error is NoVhost else 400)
    assert db.read_now(lambda conn: volumes.get(conn, known).status) == "available"
    assert db.read_now(lambda conn: attachments.of_volume(conn, known)) == []


def test_an_endpoint_is_one_guests_alone(db: Database) -> None:
    known = made(db, multiattach=True)
    one, other = ({**GUEST, "initiator": f"iqn.2026-01.org.x:{name}"} for name in ("one", "other"))
    first = asked(db, known, one)
    with pytest.raises(NoVhost, match=f"attachment {first.id} has its endpoint"):
        asked(db, known, other)
    with pytest.raises(NoVhost, match="has its endpoint") as caught:
        db.write_now(lambda conn: older_attach.initialize(conn, REQUESTER, volumes.get(conn, known), other, "external"))
    assert "end that one first" in caught.value.remedy
    elsewhere = asked(db, known, {"host": "compute7", "initiator": "iqn.2026-01.org.x:c"})
    assert elsewhere.transport == "iscsi"
    call = db.write_now(lambda conn: export_call(conn, KEYS, volumes.get(conn, known)))
    assert call is not None
    assert isinstance(call.args, ExportApply)
    assert {one.protocol for one in call.args.wanted} == {"vhost", "iscsi"}


def test_the_older_way_to_attach_knows_the_word_too(db: Database) -> None:
    known = made(db)
    row, work = db.write_now(
        lambda conn: older_attach.initialize(conn, REQUESTER, volumes.get(conn, known), GUEST, "external")
    )
    assert (row.transport, work is None) == ("vhost", False)


def test_a_host_never_attaches_by_it(db: Database) -> None:
    known = made(db, ("local", "vhost"))
    with pytest.raises(transports.NoTransport, match="no transport reaches it from host away"):
        db.read_now(lambda conn: test_transports.chosen(conn, known))
