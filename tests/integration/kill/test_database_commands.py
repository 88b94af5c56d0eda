"""Commands that change a database, killed in the middle and run again, on both kinds of database."""

from __future__ import annotations

import datetime
import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Connection, Table, delete, func, insert, select, text

from agent.base.ids import new_id
from coordinator.server.settings import CoordinatorSection, CoordinatorSettings
from coordinator.server.start import open_state
from coordinator.state.database import Database
from coordinator.state.migrations import versions
from coordinator.state.moves import MOVES, NotMoved
from coordinator.state.schema import HEAD, RELEASED, prepare, version
from coordinator.state.tables import load_all
from coordinator.state.tables.archive import archive
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.quotas import quota_usages
from coordinator.state.tables.volumes import volume_metadata, volumes
from coordinator.state.upgrade import _config, check_pending, differences
from tests.support import postgres

pytestmark = [pytest.mark.kill, pytest.mark.timeout(900)]
BIN = Path(sys.executable).parent
# Each migration in turn on request: every one is a start of the command.
KILLED_AFTER = range(1, len(RELEASED)) if os.environ.get("BRICKYARD_MIGRATIONS") == "all" else (1, 3)
STEP, DONE, COPIED = "upgrade.step", "upgrade.done", "archive.copied"

# Ends itself when both rows are written and before they are kept.
_DIES_INSIDE = """
import os, pathlib, signal, sys
from sqlalchemy import func, select
from agent.base.ids import new_id
from coordinator.state.database import Database
from coordinator.state.tables.quotas import quota_usages
from coordinator.state.tables.volumes import volumes
from coordinator.state.transition import enter
from coordinator.state.usage import RULES, Rules

def write(conn):
    enter(conn, "volume", "create", id=new_id(), project_id="p", user_id="u", size=1)
    print(*(conn.execute(select(func.count()).select_from(table)).scalar_one() for table in (volumes, quota_usages)))
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)

where = sys.argv[1]
db = Database.postgresql(where) if "://" in where else Database.sqlite(pathlib.Path(where))
db.engine.update_execution_options(**{RULES: Rules(kept=True)})
db.write_now(write)
"""


@dataclass
class Place:
    """A state directory, and the database that its configuration names."""

    folder: Path
    url: str | None

    def open(self) -> Database:
        return Database.postgresql(self.url) if self.url else Database.sqlite(self.folder / "coordinator.db")

    def run(self, *arguments: str, fault: str | None = None) -> tuple[int, str]:
        sets = [f"coordinator.state_dir={self.folder}", *([f"state.url={self.url}"] if self.url else []),
                *([f"testing.fault={fault}"] if fault else [])]  # fmt: skip
        words = [BIN / "brickyard-coordinator", *arguments, *(f"--set={item}" for item in sets)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False, env={**os.environ})
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return Place(folder, postgres.cluster().database() if request.param == "postgresql" else None)


@pytest.mark.parametrize("fault", [*(f"{STEP}@{number}" for number in KILLED_AFTER), DONE])
def test_a_killed_upgrade_starts_clean(place: Place, fault: str) -> None:
    def older(conn: Connection) -> None:
        command.upgrade(_config(conn), RELEASED[0])
        conn.execute(text("INSERT INTO quota_limits VALUES ('p', 'volumes', 7)"))

    with closing(place.open()) as db:
        db.write_now(older)
    code, told = place.run("db", "upgrade", fault=fault)
    assert code == -signal.SIGKILL, told
    with closing(place.open()) as db:
        found = db.read_now(version)
        # Beside coordinators at work each change is whole by itself, and those before the one that was killed stay.
        before = 0 if place.url is None else int(fault.partition("@")[2] or 1) - 1
        assert found == RELEASED[before]
    code, told = place.run("db", "upgrade")
    assert (code, told) == (0, f"Schema {found} upgraded to {HEAD}.\n")
    with closing(place.open()) as db:
        assert db.read_now(differences) == []
        assert db.read_now(lambda conn: conn.execute(text("SELECT hard_limit FROM quota_limits")).scalar_one()) == 7


def test_two_upgrades_at_once_are_one(place: Place) -> None:
    with closing(place.open()) as db:
        db.write_now(lambda conn: command.upgrade(_config(conn), RELEASED[0]))
    words = [BIN / "brickyard-coordinator", "db", "upgrade", f"--set=coordinator.state_dir={place.folder}",
             *([f"--set=state.url={place.url}"] if place.url else [])]  # fmt: skip
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    told = [each.communicate(timeout=600)[0] for each in both]
    assert any(f"upgraded to {HEAD}" in one for one in told), told
    # The other found it done, or (on SQLite) that another process has the file.
    assert all("upgraded" in one or "already" in one or "is in use" in one or "has it" in one for one in told), told
    with closing(place.open()) as db:
        assert db.read_now(differences) == []


def test_a_newer_schema_is_refused_with_a_sentence(place: Place) -> None:
    with closing(place.open()) as db:
        db.write_now(prepare)
        db.write_now(lambda conn: conn.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    for words in (("db", "upgrade"), ("db", "archive"), ("serve",)):
        code, told = place.run(*words)
        assert code not in {0, 70}, told
        assert "9999" in told
        assert "Traceback" not in told


def test_a_killed_archive_loses_and_doubles_nothing(place: Place) -> None:
    def fill(conn: Connection) -> None:
        prepare(conn)
        load_all()
        now = utcnow()
        rows = [
            {"id": new_id(), "project_id": "p", "user_id": "u", "size": 1, "status": "deleted", "deleted": True,
             "deleted_at": now, "created_at": now}
            for _ in range(1200)
        ]  # fmt: skip
        conn.execute(insert(volumes), rows)

    with closing(place.open()) as db:
        db.write_now(fill)
    assert place.run("db", "archive", fault=f"{COPIED}@2")[0] == -signal.SIGKILL
    assert counts(place) == (700, 500)
    code, told = place.run("db", "archive", "--max", "100")
    assert (code, told) == (0, "volumes: 100 archived\n")
    assert counts(place) == (600, 600)
    assert place.run("db", "archive") == (0, "volumes: 600 archived\n")
    assert place.run("db", "archive") == (0, "Nothing to archive.\n")
    assert counts(place) == (0, 1200)
    assert place.run("db", "purge", "0") == (0, "archived rows: 1200 dropped\n")
    assert counts(place) == (0, 0)


def test_a_killed_purge_leaves_no_half_of_a_row(place: Place) -> None:
    """Of what it dropped the parts are gone too, of what it had not come to none; run again, the rest goes."""
    old = utcnow() - datetime.timedelta(days=10)
    same = {"project_id": "p", "user_id": "u", "size": 1, "status": "deleted", "deleted": True, "created_at": old,
            "deleted_at": old}  # fmt: skip
    ids = [new_id() for _ in range(1200)]

    def fill(conn: Connection) -> None:
        prepare(conn)
        conn.execute(insert(volumes), [{"id": one, **same} for one in ids])
        conn.execute(insert(volume_metadata), [{"volume_id": one, "key": "k", "value": "v"} for one in ids])

    with closing(place.open()) as db:
        db.write_now(fill)
    code, told = place.run("db", "purge", "7", fault="purge.parts-gone@2")
    assert code == -signal.SIGKILL, told
    assert counts(place, volumes, volume_metadata) == (700, 700)
    assert place.run("db", "check")[0] == 0
    assert place.run("db", "purge", "7") == (0, "volumes: 700 dropped\n")
    assert place.run("db", "purge", "7") == (0, "Nothing is past its time.\n")
    assert counts(place, volumes, volume_metadata) == (0, 0)


@pytest.mark.parametrize("fault", ["backup.begun", "backup.pages", "backup.written", "backup.named"])
def test_a_killed_backup_is_whole_or_not_there(place: Place, tmp_path: Path, fault: str) -> None:
    if place.url is not None and fault == "backup.pages":
        pytest.skip("rows are carried, not pages: see the test of restoring")
    _state(place.folder, 600)
    if place.url is not None:
        assert place.run("db", "move")[0] == 0
    copy = tmp_path / "copies" / "copy"
    copy.parent.mkdir()
    code, told = place.run("db", "backup", str(copy), fault=fault)
    assert code == -signal.SIGKILL, told
    assert copy.exists() == (fault == "backup.named")
    if not copy.exists():
        assert place.run("db", "backup", str(copy))[0] == 0
    # What the killed one left beside it goes with the next backup to that file, also after this one was put away.
    copy.rename(copy.with_name("monday"))
    assert place.run("db", "backup", str(copy))[0] == 0
    assert sorted(path.name for path in copy.parent.iterdir()) == ["copy", "monday"]
    for each in ("copy", "monday"):
        with closing(sqlite3.connect(copy.with_name(each))) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert db.execute("SELECT count(*) FROM volumes").fetchone() == (600,)
    code, told = place.run("db", "restore", str(copy.with_name("monday")), "--replace", fault="rows.carried@4")
    assert code == -signal.SIGKILL, told
    assert place.run("db", "restore", str(copy.with_name("monday")), "--replace")[0] == 0
    assert counts(place) == (600, 0)


@pytest.mark.parametrize(
    "words",
    [("purge", "-1"), ("purge", "99999"), ("purge", "abc"), ("archive", "--max", "0"),
     ("archive", "--before", "2999-01-01"), ("archive", "--before", "soon"), ("archive", "--older-than", "-3")],
)  # fmt: skip
def test_ages_that_can_not_be_change_nothing(tmp_path: Path, words: tuple[str, ...]) -> None:
    place = Place(tmp_path, None)
    old = utcnow() - datetime.timedelta(days=10**4)
    row = {"id": new_id(), "project_id": "p", "user_id": "u", "size": 1, "status": "deleted", "deleted": True,
           "created_at": old, "deleted_at": old}  # fmt: skip
    with closing(place.open()) as db:
        db.write_now(prepare)
        db.write_now(lambda conn: conn.execute(insert(volumes).values(row)))
    code, told = place.run("db", *words)
    assert (code, "Error: " in told, "Traceback" in told) == (2, True, False), told
    assert counts(place) == (1, 0)


def test_where_nothing_was_deleted_nothing_is_dropped_and_that_is_no_failure(place: Place) -> None:
    with closing(place.open()) as db:
        db.write_now(prepare)
    assert place.run("db", "purge", "7") == (0, "Nothing is past its time.\n")
    assert place.run("db", "archive") == (0, "Nothing to archive.\n")


def test_killed_between_the_rows_of_one_write_none_of_them_is_there(place: Place) -> None:
    """What a volume takes of the quota and the volume itself are one write: kept together or not at all."""
    with closing(place.open()) as db:
        db.write_now(prepare)
    done = subprocess.run(
        [sys.executable, "-c", _DIES_INSIDE, place.url or str(place.folder / "coordinator.db")],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "1 1\n"), done.stderr
    assert counts(place, volumes, quota_usages) == (0, 0)


def counts(place: Place, *of: Table) -> tuple[int, ...]:
    """How many rows these tables have: volumes and the archive, where none is named."""

    def read(conn: Connection) -> tuple[int, ...]:
        load_all()
        return tuple(
            int(conn.execute(select(func.count()).select_from(table)).scalar_one())
            for table in of or (volumes, archive)
        )

    with closing(place.open()) as db:
        return db.read_now(read)


def _state(folder: Path, count: int) -> None:
    """A site on SQLite, as a coordinator leaves it, with so many volumes."""
    settings = CoordinatorSettings(coordinator=CoordinatorSection(state_dir=folder, listen="127.0.0.1"))
    with closing(open_state(settings).db) as db:
        same = {"project_id": "p", "user_id": "u", "size": 1, "status": "available", "created_at": utcnow()}
        db.write_now(lambda conn: conn.execute(insert(volumes), [{"id": new_id(), **same} for _ in range(count)]))


@pytest.mark.postgresql
@pytest.mark.parametrize("fault", ["rows.carried@4", "move.carried", "move.shared", "move.put-away"])
def test_a_killed_move_is_done_by_another(tmp_path: Path, fault: str) -> None:
    place = Place(tmp_path / "state", postgres.cluster().database())
    _state(place.folder, 600)
    old, away = place.folder / "coordinator.db", place.folder / "coordinator.db.moved"
    code, told = place.run("db", "move", fault=fault)
    assert code == -signal.SIGKILL, told
    assert (old.exists(), away.exists()) == ((False, True) if fault == "move.put-away" else (True, False))
    code, told = place.run("db", "move")
    if fault == "move.put-away":
        assert "no " in told
    else:
        assert code == 0, told
        assert ("Moved before." in told) == fault.startswith("move.")
    assert away.exists()
    assert counts(place) == (600, 0)
    assert place.run("db", "check")[0] == 0


def test_a_killed_restore_leaves_the_old_state_or_the_new_one(place: Place, tmp_path: Path) -> None:
    _state(place.folder, 600)
    if place.url is not None:
        assert place.run("db", "move")[0] == 0
    copy = tmp_path / "copy"
    if place.url is not None:
        assert place.run("db", "backup", str(copy), fault="rows.carried@4")[0] == -signal.SIGKILL
        assert not copy.exists()
    assert place.run("db", "backup", str(copy))[0] == 0
    with closing(place.open()) as db:
        db.write_now(lambda conn: conn.execute(delete(volumes).where(volumes.c.id > "8")).rowcount)
    left = counts(place)
    assert left[0] < 600
    code, told = place.run("db", "restore", str(copy), "--replace", fault="rows.carried@4")
    assert code == -signal.SIGKILL, told
    assert counts(place) == left
    assert place.run("db", "check")[0] == 0
    assert place.run("db", "restore", str(copy), "--replace")[0] == 0
    assert counts(place) == (600, 0)


def _temporary(place: Place, count: int) -> None:
    """Volumes that stand in for others, of before there was a flag for that."""

    def write(conn: Connection) -> None:
        prepare(conn)
        same = {"project_id": "p", "user_id": "u", "size": 1, "status": "available", "created_at": utcnow()}
        rows = [{"id": new_id(), "migration_status": "target:x", **same} for _ in range(count)]
        conn.execute(insert(volumes), rows)

    with closing(place.open()) as db:
        db.write_now(write)


def test_data_are_moved_in_pieces_and_an_upgrade_that_counts_on_them_waits(place: Place, tmp_path: Path) -> None:
    _temporary(place, 1000)
    (tmp_path / "later.py").write_text(
        f"revision, down_revision = '9000', '{HEAD}'\nneeds_moved = ('{MOVES[0].name}',)\ndef upgrade(): pass\n"
    )

    def pending(conn: Connection) -> None:
        config = _config(conn)
        config.set_main_option("path_separator", "space")
        config.set_main_option("version_locations", f"{Path(versions.__file__).parent} {tmp_path}")
        check_pending(conn, config, HEAD)

    with closing(place.open()) as db, pytest.raises(NotMoved, match=r"Schema 9000 counts on .* 1000 of"):
        db.read_now(pending)
    code, told = place.run("db", "online-data-migrations", "--max-count", "0")
    assert code == 2, told
    for left in range(900, 0, -100):
        code, told = place.run("db", "online-data-migrations", "--max-count", "100")
        assert code == 1, told
        assert f"{left} of" in told
        if left == 700:
            break
    code, told = place.run("db", "online-data-migrations", fault="move.row@250")
    assert code == -signal.SIGKILL, told
    code, told = place.run("db", "online-data-migrations")
    assert (code, told.splitlines()[-1]) == (0, "Nothing is left to be moved.")
    with closing(place.open()) as db:
        db.read_now(pending)
        still = select(func.count()).where(volumes.c.use_quota)
        assert db.read_now(lambda conn: conn.execute(still).scalar_one()) == 0
    assert place.run("db", "online-data-migrations")[0] == 0


def test_two_who_move_data_at_once_both_end_well(place: Place) -> None:
    _temporary(place, 600)
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda _: place.run("db", "online-data-migrations"), range(2)))
    assert [code for code, _ in outcomes] == [0, 0], outcomes
    lines = [line for _, told in outcomes for line in told.splitlines() if line.startswith(MOVES[0].name)]
    assert sum(int(line.rpartition(": ")[2].split()[0]) for line in lines) == 600, outcomes
