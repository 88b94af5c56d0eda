"""The three truths of one host: differences become issues, agreement closes them, and nothing is ever deleted."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, update

from agent.base.ids import new_id
from agent.wire.jobs import Generation
from agent.wire.results import HostAttachment, HostExport, InventoryVolume
from coordinator.fleet.reconciler import CODES, differences, gone_backends, of_exports
from coordinator.state import issues, volumes
from coordinator.state.database import Database
from coordinator.state.issues import Issue
from coordinator.state.tables.fleet import hosts
from coordinator.state.transition import enter, move
from tests.support import databases

GIB = 1 << 30


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = databases.fresh(tmp_path / "state.db")
    yield database
    database.close()


def volume(conn: Connection, **more: object) -> str:
    values = {"id": new_id(), "project_id": "p", "user_id": "u", "size": 1, "host_id": "h", "backend": "files", **more}
    row = enter(conn, "volume", "create", **values)
    move(conn, "volume", row.id, "created", device_bytes=GIB)
    return str(row.id)


def held(kind: str, id: str, size: int = GIB) -> InventoryVolume:
    return InventoryVolume(backend="files", kind=kind, id=id, device_bytes=size, allocated_bytes=0)  # type: ignore[arg-type]


def attachment(id: str, volume_id: str, state: str = "attached") -> HostAttachment:
    return HostAttachment(
        attachment_id=id, volume_id=volume_id, backend="files", generation=Generation(incarnation=1, sequence=1),
        device="/dev/loop9", raw_device="/dev/loop9", state=state,
    )  # type: ignore[arg-type]  # fmt: skip


def codes(db: Database, inventory: list[InventoryVolume], attached: list[HostAttachment]) -> set[tuple[str, str]]:
    found = db.read_now(lambda conn: differences(conn, "h", inventory, attached))
    assert {issue.code for issue in found} <= set(CODES)
    assert all(issue.remedy and issue.sentence for issue in found)
    return {(issue.code, issue.resource_id) for issue in found}


def test_agreement_finds_nothing(db: Database) -> None:
    known = db.write_now(volume)
    assert codes(db, [held("volume", known)], []) == set()


def test_missing_data_another_size_and_orphans(db: Database) -> None:
    lost, grown = db.write_now(volume), db.write_now(volume)
    stray, snap = new_id(), new_id()
    found = codes(db, [held("volume", grown, 5), held("volume", stray), held("snapshot", snap)], [])
    assert found == {
        ("volume.missing-data", lost),
        ("volume.size-differs", grown),
        ("volume.orphan", stray),
        ("snapshot.orphan", snap),
    }


def test_volumes_of_a_back_end_that_is_not_configured_any_more_are_not_called_lost(db: Database) -> None:
    db.write_now(lambda conn: conn.execute(insert(hosts).values(id="h", facts={"backends": ["files"]})))
    kept, lost = db.write_now(lambda conn: volume(conn, backend="more")), db.write_now(volume)
    gone = db.read_now(lambda conn: gone_backends(conn, "h"))
    found = db.read_now(lambda conn: differences(conn, "h", [], [], gone=gone))
    assert {(issue.code, issue.resource_id) for issue in found} == {
        ("backend.gone", "h@more"),
        ("volume.missing-data", lost),
    }
    assert kept != lost
    assert "[backends.more]" in next(issue.remedy for issue in found if issue.code == "backend.gone")
    for told in ({"backends": ["files", "more"]}, {"backends": None}, {}):
        statement = update(hosts).values(facts=told)
        db.write_now(partial(Connection.execute, statement=statement))
        assert db.read_now(lambda conn: gone_backends(conn, "h")) == set()


def test_what_is_in_the_middle_of_something_is_left_alone(db: Database) -> None:
    busy = db.write_now(volume)
    db.write_now(lambda conn: move(conn, "volume", busy, "delete"))
    assert codes(db, [], []) == set()


def test_attachments_on_one_side_alone(db: Database) -> None:
    known = db.write_now(volume)
    mine, stray = new_id(), new_id()

    def attach(conn: Connection) -> None:
        enter(conn, "attachment", "host_attach", id=mine, volume_id=known, project_id="p", owner="agent", host_id="h")
        move(conn, "attachment", mine, "host_attached")

    db.write_now(attach)
    inventory = [held("volume", known)]
    assert codes(db, inventory, [attachment(mine, known)]) == set()
    assert codes(db, inventory, [attachment(stray, known)]) == {
        ("attachment.missing", mine),
        ("attachment.orphan", stray),
    }
    assert codes(db, inventory, [attachment(mine, known, "missing")]) == {("attachment.missing", mine)}


def test_an_issue_is_one_row_until_it_no_longer_holds(db: Database) -> None:
    lost = db.write_now(volume)
    issue = Issue("volume.missing-data", "volume", lost, "It is gone.", "Look.", host_id="h", project_id="p")
    for _ in range(3):
        db.write_now(lambda conn: issues.raise_issue(conn, issue))
    assert len(db.read_now(issues.listing)) == 1
    db.write_now(lambda conn: issues.settle(conn, "h", CODES, {("volume.missing-data", lost)}))
    assert len(db.read_now(issues.listing)) == 1
    db.write_now(lambda conn: issues.settle(conn, "h", CODES, set()))
    assert db.read_now(issues.listing) == []
    assert len(db.read_now(lambda conn: issues.listing(conn, with_closed=True))) == 1
    assert db.read_now(lambda conn: volumes.get(conn, lost)).status == "available"


def test_exports_beside_the_attachments_that_need_them(db: Database) -> None:
    known, lost, stray = db.write_now(volume), new_id(), new_id()

    def attach(conn: Connection, id: str) -> None:
        enter(conn, "attachment", "host_attach", id=id, volume_id=known, project_id="p", owner="agent", host_id="other",
              attached_host="other", transport="iscsi", initiator="iqn.2026-01.org.x:h")  # fmt: skip
        move(conn, "attachment", id, "host_attached")

    def export(id: str, state: str = "exported") -> HostExport:
        return HostExport.model_validate({
            "attachment_id": id, "volume_id": known, "backend": "files", "protocol": "iscsi", "state": state,
            "generation": {"incarnation": 1, "sequence": 1}, "initiator": "iqn.2026-01.org.x:h", "reason": "gone",
        })  # fmt: skip

    db.write_now(lambda conn: attach(conn, lost))

    def seen(*exported: HostExport) -> set[tuple[str, str]]:
        found = db.read_now(lambda conn: of_exports(conn, "h", list(exported)))
        assert {issue.code for issue in found} <= set(CODES)
        return {(issue.code, issue.resource_id) for issue in found}

    assert seen() == {("export.missing", lost)}
    assert seen(export(lost, "missing")) == {("export.missing", lost)}
    assert seen(export(lost)) == set()
    assert seen(export(lost), export(stray)) == {("export.orphan", stray)}
    assert db.read_now(lambda conn: of_exports(conn, "other", [])) == []
