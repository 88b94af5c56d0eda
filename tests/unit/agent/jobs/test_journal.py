from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlite_utils import Database

from agent.base.errors import Conflict
from agent.jobs.errors import JournalNewer, JournalUnavailable
from agent.jobs.journal import Journal


@pytest.fixture
async def journal(tmp_path: Path):
    made = Journal(tmp_path / "journal.db")
    await made.open()
    yield made
    await made.close()


def put(db: Database, name: str) -> str:
    db.execute("INSERT INTO epochs VALUES (?, 1, 0.0)", (name,))
    return name


def names(db: Database) -> list[str]:
    return [row[0] for row in db.execute("SELECT operation FROM epochs ORDER BY operation")]


async def test_tables_are_strict_and_settings_are_durable(journal: Journal) -> None:
    def look(db: Database) -> tuple[set[str], str, int]:
        loose = {row[1] for row in db.execute("PRAGMA table_list") if row[0] == "main" and not row[5]}
        return loose, db.journal_mode, db.execute("PRAGMA synchronous").fetchone()[0]

    loose, mode, sync = await journal.read(look)
    assert not {name for name in loose if not name.startswith(("sqlite_", "_sqlite_"))}
    assert (mode, sync) == ("wal", 2)
    assert journal.path.stat().st_mode & 0o777 == 0o600


async def test_what_arrives_together_is_committed_together(journal: Journal) -> None:
    before = journal.commits
    done = await asyncio.gather(*(journal.write(lambda db, i=i: put(db, f"op{i:03}")) for i in range(200)))
    assert len(done) == 200
    assert journal.commits - before < 50
    assert len(await journal.read(names)) == 200


async def test_a_failing_neighbour_harms_nobody(journal: Journal) -> None:
    def fail(db: Database) -> None:
        put(db, "never")
        raise Conflict(reason="no")

    calls = [journal.write(lambda db: put(db, "a")), journal.write(fail), journal.write(lambda db: put(db, "b"))]
    a, failed, b = await asyncio.gather(*calls, return_exceptions=True)
    assert (a, b) == ("a", "b")
    assert isinstance(failed, Conflict)
    assert await journal.read(names) == ["a", "b"]


async def test_a_cancelled_caller_does_not_undo_its_write(journal: Journal) -> None:
    task = asyncio.create_task(journal.write(lambda db: put(db, "a")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await journal.read(names) == ["a"]


async def test_what_was_written_is_there_after_closing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        journal = Journal(tmp_path / "journal.db")
        await journal.open()
        await journal.write(lambda db, name=name: put(db, name))
        await journal.close()
        await journal.close()
    assert sqlite3.connect(tmp_path / "journal.db").execute("SELECT count(*) FROM epochs").fetchone() == (2,)
    with pytest.raises(JournalUnavailable):
        await journal.write(names)


async def test_a_full_disk_is_told_and_writes_nothing(journal: Journal) -> None:
    pages = await journal.read(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
    await journal.read(lambda db: db.execute(f"PRAGMA max_page_count={pages}").fetchone())
    with pytest.raises(JournalUnavailable, match="full"):
        await journal.write(lambda db: [put(db, f"{i}-{'x' * 500}") for i in range(100)])
    assert await journal.read(names) == []
    await journal.read(lambda db: db.execute("PRAGMA max_page_count=100000").fetchone())
    await journal.write(lambda db: put(db, "a"))


async def test_a_folder_that_is_missing_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable):
        await Journal(tmp_path / "none" / "journal.db").open()


async def test_a_journal_of_a_newer_release_is_refused(journal: Journal, tmp_path: Path) -> None:
    await journal.close()
    with sqlite3.connect(journal.path) as db:
        db.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('agent', '9999_future', '')"
        )
    with pytest.raises(JournalNewer, match="9999_future"):
        await Journal(journal.path).open()
