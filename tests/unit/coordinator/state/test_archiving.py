"""Rows of what was deleted are moved away whole, a bounded number at a time, and what is still referred to stays."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, update

from agent.base.ids import new_id
from coordinator.server.housekeeping import kept
from coordinator.server.settings import HousekeepingSection
from coordinator.state import archiving, purge, volumes
from coordinator.state.database import Database
from coordinator.state.rows import tables
from coordinator.state.tables import metadata as schema
from coordinator.state.tables.archive import archive
from coordinator.state.tables.columns import utcnow
from coordinator.state.transition import enter, move
from tests.support import databases

DAY = datetime.timedelta(days=1)
LATER = utcnow() + DAY


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = databases.fresh(tmp_path / "state.db")
    yield database
    database.close()


def volume(conn: Connection, *, gone: bool = True, snapshot: bool = True, old: bool = False) -> str:
    values = {"project_id": "p", "user_id": "u"}
    row = enter(conn, "volume", "create", id=new_id(), size=1, **values)
    volumes.put_metadata(conn, row.id, {"a": "b"})
    volumes.put_metadata(conn, row.id, {"readonly": "True"}, admin=True)
    volumes.put_image_metadata(conn, row.id, {"os": "x"})
    move(conn, "volume", row.id, "created")
    if snapshot:
        made = enter(conn, "snapshot", "create", id=new_id(), volume_id=row.id, volume_size=1, **values)
        conn.execute(insert(schema.tables["snapshot_metadata"]).values(snapshot_id=made.id, key="k", value="v"))
        move(conn, "snapshot", made.id, "created")
        if gone:
            move(conn, "snapshot", made.id, "delete")
            move(conn, "snapshot", made.id, "deleted")
    attachment = enter(conn, "attachment", "attach_now", id=new_id(), volume_id=row.id, project_id="p",
                       owner="external", attached_host="h", connector={"host": "h"})  # fmt: skip
    offer = {"id": new_id(), "volume_id": row.id, "salt": "s", "key_hash": "k", "source_project_id": "p"}
    conn.execute(insert(schema.tables["transfers"]).values(**offer))
    if gone:
        move(conn, "attachment", attachment.id, "gone")
        transfers = schema.tables["transfers"]
        mine = transfers.c.volume_id == row.id
        conn.execute(update(transfers).where(mine).values(deleted=True, deleted_at=utcnow()))
        move(conn, "volume", row.id, "delete")
        move(conn, "volume", row.id, "deleted")
    if old:
        for name in ("volumes", "snapshots", "attachments", "transfers"):
            table = schema.tables[name]
            mine = table.c.id == row.id if name == "volumes" else table.c.volume_id == row.id
            conn.execute(update(table).where(mine).values(deleted_at=utcnow() - 10 * DAY))
    return str(row.id)


def sizes(db: Database) -> dict[str, int]:
    def count(conn: Connection) -> dict[str, int]:
        return {
            table.name: int(conn.execute(select(func.count()).select_from(table)).scalar_one()) for table in tables()
        }

    return {name: number for name, number in db.read_now(count).items() if number and name not in {"site_values"}}


def archived(db: Database, before: datetime.datetime = LATER, most: int | None = None) -> dict[str, int]:
    total: dict[str, int] = {}
    while counts := db.write_now(lambda conn: archiving.move(conn, before, most, total)):
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count
    return total


def test_a_bounded_number_is_moved_and_the_rest_later(db: Database) -> None:
    for _ in range(5):
        db.write_now(volume)
    first = archived(db, most=3)
    assert {name: first[name] for name in ("attachments", "transfers", "snapshots")} == dict.fromkeys(
        ("attachments", "transfers", "snapshots"), 3
    )
    assert first.get("volumes", 0) <= 3
    rest = archived(db)
    assert {name: first.get(name, 0) + count for name, count in rest.items()} == dict.fromkeys(rest, 5)
    assert archived(db) == {}
    assert sizes(db) == {"archive": 20}


def test_what_is_moved_is_whole(db: Database) -> None:
    gone = db.write_now(volume)
    archived(db)
    rows = {row.of_table: row for row in db.read_now(lambda conn: conn.execute(select(archive)).all())}
    content: dict[str, Any] = rows["volumes"].content
    assert rows["volumes"].row_key == gone
    assert (content["row"]["id"], content["row"]["size"], content["row"]["status"]) == (gone, 1, "deleted")
    assert datetime.datetime.fromisoformat(content["row"]["created_at"])
    assert content["parts"]["volume_metadata"] == [{"volume_id": gone, "key": "a", "value": "b"}]
    assert set(content["parts"]) == {"volume_metadata", "volume_admin_metadata", "volume_image_metadata"}
    assert rows["attachments"].content["row"]["connector"] == {"host": "h"}
    assert rows["snapshots"].content["parts"]["snapshot_metadata"][0]["value"] == "v"


def test_what_lives_or_is_young_stays(db: Database) -> None:
    db.write_now(lambda conn: volume(conn, gone=False))
    before = sizes(db)
    assert archived(db) == {}
    old, young = db.write_now(lambda conn: (volume(conn, old=True), volume(conn)))
    moved = archived(db, utcnow() - 7 * DAY)
    assert moved == {"attachments": 1, "transfers": 1, "snapshots": 1, "volumes": 1}
    there = db.read_now(lambda conn: set(conn.execute(select(schema.tables["volumes"].c.id)).scalars()))
    assert young in there
    assert old not in there
    assert {name: count for name, count in sizes(db).items() if name == "volumes"} == {"volumes": before["volumes"] + 1}


def test_what_something_refers_to_is_kept_and_counted(db: Database) -> None:
    def referred(conn: Connection) -> None:
        type_id = new_id()
        conn.execute(insert(schema.tables["volume_types"]).values(id=type_id, name="gold"))
        kept_by = volume(conn, snapshot=False)
        conn.execute(insert(schema.tables["transfers"]).values(
            id=new_id(), volume_id=kept_by, salt="s", key_hash="k", source_project_id="p"))  # fmt: skip
        live = volume(conn, gone=False, snapshot=False)
        volumes.set_values(conn, live, volume_type_id=type_id)
        table = schema.tables["volume_types"]
        conn.execute(update(table).where(table.c.id == type_id).values(deleted=True, deleted_at=utcnow()))

    db.write_now(referred)
    assert archived(db) == {"attachments": 1, "transfers": 1}
    assert db.read_now(lambda conn: archiving.left(conn, LATER)) == {"volumes": 1, "volume types": 1}


def test_purging_drops_deleted_volumes_with_all_that_names_them_archived_or_not(db: Database) -> None:
    limits = kept(HousekeepingSection())
    week = purge.Kept(limits.operations, limits.events, limits.issues, 7 * DAY, 7 * DAY)
    db.write_now(lambda conn: (volume(conn, old=True), volume(conn), volume(conn, gone=False)))

    def purged() -> dict[str, int]:
        total: dict[str, int] = {}
        while found := db.read_now(lambda conn: purge.due(conn, week)):
            for name, count in db.write_now(lambda conn: purge.drop(conn, week, found)).items():
                total[name] = total.get(name, 0) + count
        return total

    assert purged() == {"attachments": 1, "transfers": 1, "snapshots": 1, "volumes": 1}
    assert sizes(db)["volumes"] == 2
    db.write_now(lambda conn: volume(conn, old=True))
    archived(db)
    assert purged() == {"archived rows": 4}
    assert sizes(db)["archive"] == 4
