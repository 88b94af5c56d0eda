"""Whole states carried from place to place: nothing is lost on the way, and hosts believe the new state alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, select

from agent.base.ids import new_id
from agent.base.terminal.entry import outcome
from coordinator.cli.service import service
from coordinator.operations.accept import Requester, accept
from coordinator.server.settings import CoordinatorSection, CoordinatorSettings, StateSection
from coordinator.server.start import Opened, open_state
from coordinator.state import attachments, events, operations, rows, site, volumes
from coordinator.state.database import Database
from coordinator.state.tables.events import events as event_rows
from coordinator.state.transition import enter, move
from tests.support import postgres

REQUESTER = Requester("p", "u", "req-1", "me")


def settings_for(folder: Path, url: str | None = None) -> CoordinatorSettings:
    section = CoordinatorSection(state_dir=folder, listen="127.0.0.1")
    kek = folder.parent / "kek" if url is not None else None
    keys = {"keys": {"kek_file": kek}} if kek is not None and kek.exists() else {}
    return CoordinatorSettings(coordinator=section, state=StateSection(url=url), **keys)


def run(settings: CoordinatorSettings, *arguments: str) -> int:
    sets = ["--set", f"coordinator.state_dir={settings.state_dir}"]
    if settings.state.url is not None:
        sets += ["--set", f"state.url={settings.state.url}"]
    return outcome(service, "brickyard-coordinator", [*arguments, *sets])


def fill(opened: Opened) -> str:
    """A volume with work under way, a secret, a generation."""

    def fn(conn: Connection) -> str:
        opened.keys.create(conn, project_id="p", user_id="u", type="passphrase", value=b"open sesame")
        row = enter(conn, "volume", "create", id=new_id(), project_id="p", user_id="u", size=1, name="Größe")
        accept(conn, REQUESTER, kind="create_volume", resource_type="volume", resource_id=row.id, args={"az": None})
        attachments.next_generations(conn, row.id, "host-a", 3)
        return str(row.id)

    return opened.db.write_now(fn)


@pytest.fixture
def url() -> Iterator[str]:
    made = postgres.cluster().database()
    yield made
    postgres.cluster().drop(made)


def all_rows(db: Database) -> dict[str, object]:
    return {table.name: db.read_now(lambda conn, table=table: rows.digests(conn, table)) for table in rows.tables()}


def test_a_backup_is_restored_and_adopted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = settings_for(tmp_path / "old")
    opened = open_state(old)
    volume = fill(opened)
    opened.db.close()
    assert run(old, "db", "backup", str(tmp_path / "copy")) == 0
    assert run(old, "db", "restore", str(tmp_path / "copy")) == 5
    assert run(old, "db", "restore", str(tmp_path / "copy"), "--replace") == 0
    assert "db adopted" in capsys.readouterr().out

    opened = open_state(old)
    db = opened.db
    (interrupted,) = db.read_now(operations.listing)
    assert interrupted.state == "needs-attention"
    assert db.read_now(lambda conn: volumes.get(conn, volume)).name == "Größe"
    first = db.read_now(site.incarnation)
    assert first > 1
    (generation,) = db.write_now(lambda conn: attachments.next_generations(conn, volume, "host-a", 1))
    assert (generation.incarnation, generation.sequence) == (first, 1)

    def delete(conn: Connection) -> None:
        move(conn, "volume", volume, "created")
        accept(conn, REQUESTER, kind="delete_volume", resource_type="volume", resource_id=volume, args={})

    with pytest.raises(site.Adopting):
        db.write_now(delete)
    db.close()
    assert run(old, "db", "adopted") == 0
    opened = open_state(old)
    opened.db.write_now(delete)
    opened.db.close()
    assert run(old, "db", "restore", str(tmp_path / "copy"), "--replace") == 0
    opened = open_state(old)
    assert opened.db.read_now(site.incarnation) > first, "the same backup again begins a newer incarnation"
    opened.db.close()


def test_a_plan_of_restoring_tells_what_would_go_and_come_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, empty = settings_for(tmp_path / "old"), settings_for(tmp_path / "none")
    opened = open_state(old)
    fill(opened)
    opened.db.close()
    assert run(old, "db", "backup", str(tmp_path / "copy")) == 0
    opened = open_state(old)
    fill(opened)
    before = all_rows(opened.db)
    capsys.readouterr()
    plan = ("db", "restore", str(tmp_path / "copy"), "--dry-run")
    assert run(old, *plan) == 5, "as without --dry-run: there are rows, and no word of dropping them"
    capsys.readouterr()
    assert run(old, *plan, "--replace") == 0, "a coordinator may be running"
    told = capsys.readouterr().out.splitlines()
    assert "volumes: 2 would be dropped, 1 put there" in told
    assert told[-1] == "Nothing was changed."
    assert all_rows(opened.db) == before
    opened.db.close()
    assert run(empty, *plan) == 0
    assert "volumes: 0 would be dropped, 1 put there" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
    (tmp_path / "copy").write_bytes(b"no database")
    assert run(old, *plan, "--replace") == 6


@pytest.mark.parametrize("damage", [b"", b"not a database at all", None])
def test_what_is_no_backup_changes_nothing(tmp_path: Path, damage: bytes | None) -> None:
    old = settings_for(tmp_path / "old")
    opened = open_state(old)
    fill(opened)
    before = all_rows(opened.db)
    opened.db.close()
    if damage is not None:
        (tmp_path / "copy").write_bytes(damage)
    assert run(old, "db", "restore", str(tmp_path / "copy"), "--replace") == 6
    opened = open_state(old)
    assert all_rows(opened.db) == before
    opened.db.close()


@pytest.mark.postgresql
def test_a_site_moves_to_postgresql_with_all_that_it_has(tmp_path: Path, url: str) -> None:
    old = settings_for(tmp_path / "state")
    opened = open_state(old)
    volume, key = fill(opened), opened.tokens.signing
    authority, was = opened.authority.fingerprint, all_rows(opened.db)
    opened.db.close()
    new = settings_for(tmp_path / "state", url)
    assert run(new, "db", "move") == 0
    assert not old.database_file.exists()
    assert run(new, "db", "move") == 4
    opened = open_state(new)
    db = opened.db
    assert opened.authority.fingerprint == authority
    assert opened.tokens.find(key.id) == key
    now = all_rows(db)
    changed = {name for name in was if was[name] != now[name]}
    assert changed == {"generations", "site_values", "site_secrets"}
    (secret,) = db.read_now(lambda conn: opened.keys.listing(conn, None))
    assert db.read_now(lambda conn: opened.keys.get(conn, secret.id)).value == b"open sesame"
    (running,) = db.read_now(operations.listing)
    assert running.state == "running", "what was at work goes on"
    db.write_now(lambda conn: events.record(conn, running, "volume.test", {}))
    numbers = db.read_now(
        lambda conn: conn.execute(select(event_rows.c.seq).order_by(event_rows.c.seq)).scalars().all()
    )
    assert len(set(numbers)) == len(numbers) == 2
    assert db.read_now(lambda conn: volumes.get(conn, volume)).name == "Größe"
    db.close()


@pytest.mark.postgresql
def test_backup_check_and_restore_of_a_shared_database(tmp_path: Path, url: str) -> None:
    shared = settings_for(tmp_path / "state", url)
    opened = open_state(shared)
    volume = fill(opened)
    opened.db.close()
    assert run(shared, "db", "check") == 0
    assert run(shared, "db", "backup", str(tmp_path / "copy")) == 0
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    opened = open_state(shared)
    opened.db.write_now(lambda conn: move(conn, "volume", volume, "created"))
    opened.db.close()
    assert run(shared, "db", "restore", str(tmp_path / "copy"), "--replace") == 0
    opened = open_state(shared)
    assert opened.db.read_now(lambda conn: volumes.get(conn, volume)).status == "creating"
    assert opened.db.read_now(site.adopting)
    opened.db.close()


@pytest.mark.postgresql
def test_a_password_in_the_url_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"coordinator.state_dir={tmp_path}"
    sets = ["--set", where, "--set", "state.url=postgresql://me:hunter2@db/x"]
    assert outcome(service, "brickyard-coordinator", ["db", "check", "--json", *sets]) == 2
    told = capsys.readouterr()
    assert "hunter2" not in told.out + told.err.replace(json.dumps(sets), "")
