"""Migrations and tables say the same, and a killed upgrade leaves what was there."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import JSON, Column, Connection, MetaData, insert, inspect, select, text

from coordinator.state.errors import SchemaTooNew, SchemaTooOld
from coordinator.state.schema import HEAD, RELEASED, prepare, version
from coordinator.state.upgrade import _config, differences, upgrade
from tests.support import databases


def test_migrations_make_what_the_tables_say(tmp_path: Path) -> None:
    db = databases.empty(tmp_path / "state.db")
    try:
        assert db.write_now(upgrade) == (None, HEAD)
        assert db.read_now(version) == HEAD
        assert db.read_now(differences) == []
        db.write_now(prepare)
        assert db.write_now(upgrade) == (HEAD, HEAD)
    finally:
        db.close()


@pytest.mark.only("sqlite")
def test_the_quick_way_and_migrations_make_the_same_schema(tmp_path: Path) -> None:
    made = []
    for name, how in (("quick", prepare), ("migrated", upgrade)):
        db = databases.empty(tmp_path / name)
        db.write_now(how)
        rows = db.read_now(
            lambda conn: conn.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")).all()
        )
        made.append({row.name: " ".join(row.sql.split()).replace("( ", "(").replace(" )", ")") for row in rows})
        db.close()
    assert made[0].keys() == made[1].keys()
    indexes = [{name: sql for name, sql in each.items() if name.startswith(("ix_", "uq_"))} for each in made]
    assert indexes[0] == indexes[1], "SQLite uses an index only for queries that have its condition word by word"


def test_an_upgrade_that_dies_changes_nothing(tmp_path: Path) -> None:
    db = databases.empty(tmp_path / "state.db")

    def dies(conn):
        upgrade(conn)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        db.write_now(dies)
    assert db.read_now(lambda conn: inspect(conn).get_table_names()) == []
    db.write_now(upgrade)
    db.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    db = databases.fresh(tmp_path / "state.db")
    db.write_now(lambda conn: conn.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(SchemaTooNew, match="9999"):
        db.write_now(upgrade)
    with pytest.raises(SchemaTooNew):
        db.write_now(prepare)
    db.close()


@pytest.mark.timeout(900)
def test_each_released_schema_is_upgraded_with_its_rows(tmp_path: Path) -> None:
    for released in RELEASED[:-1]:
        db = databases.empty(tmp_path / released)

        def older(conn: Connection, released: str = released) -> None:
            command.upgrade(_config(conn), released)
            conn.execute(text("INSERT INTO quota_limits VALUES ('p', 'volumes', 7)"))

        db.write_now(older)
        assert db.read_now(version) == released
        with pytest.raises(SchemaTooOld):
            db.write_now(prepare)
        assert db.write_now(upgrade) == (released, HEAD)
        assert db.read_now(differences) == []
        assert db.read_now(lambda conn: conn.execute(text("SELECT hard_limit FROM quota_limits")).scalar_one()) == 7
        db.close()


def test_each_released_schema_keeps_every_row_of_every_table(tmp_path: Path) -> None:
    """Two made-up rows in each table that the release had: each column of them is the same afterwards."""
    for released in RELEASED[:-1]:
        db = databases.empty(tmp_path / f"full-{released}")
        db.write_now(lambda conn, released=released: command.upgrade(_config(conn), released))
        before = db.write_now(_filled)
        db.write_now(upgrade)
        after = db.read_now(_all_rows)
        for table, rows in before.items():
            kept = [{name: row[name] for name in rows[0]} for row in after[table]]
            assert kept == rows, (released, table)
        assert db.read_now(differences) == []
        db.close()


def _reflected(conn: Connection) -> MetaData:
    found = MetaData()
    found.reflect(conn)
    found.remove(found.tables["alembic_version"])
    return found


def _filled(conn: Connection) -> dict[str, list[dict[str, Any]]]:
    for table in _reflected(conn).sorted_tables:
        for number in (1, 2):
            conn.execute(insert(table).values({column.name: _made_up(column, number) for column in table.columns}))
    return _all_rows(conn)


def _made_up(column: Column[Any], number: int) -> Any:
    kind = column.type.python_type if not isinstance(column.type, JSON) else dict
    if kind is str:
        return str(number) * min(getattr(column.type, "length", None) or 8, 8)
    known: dict[type, Any] = {
        bool: False, int: number, float: float(number), dict: {"n": number}, bytes: b"x" * number,
        datetime.datetime: datetime.datetime(2026, 1, number, 12, 0, 0, 5),
    }  # fmt: skip
    return known[kind]


def _all_rows(conn: Connection) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for table in _reflected(conn).sorted_tables:
        rows = conn.execute(select(table).order_by(*table.primary_key.columns))
        found[table.name] = [dict(row._mapping) for row in rows]
    return found
