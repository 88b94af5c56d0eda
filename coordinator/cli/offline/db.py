"""`db check`, `db backup`; what carries whole states is in `moving`, what drops and changes rows in `aging`."""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import click

from agent.base.config import load
from agent.base.errors import Conflict, Permanent
from agent.base.faults import declare, fault_point
from agent.base.files import sync_folder
from agent.base.terminal.config import config_options
from coordinator.cli.offline.aging import archive, online_data_migrations, purge, upgrade
from coordinator.cli.offline.moving import COMMANDS, copy_to
from coordinator.cli.offline.site import beside, checked
from coordinator.server.settings import DEFAULT_CONFIG, CoordinatorSettings

declare("backup.begun", "backup.pages", "backup.written", "backup.named")
PAGES = 1024
"""Of a database are copied at once: 4 MiB."""


class Damaged(Permanent):
    """SQLite or the comparison with the tables found something."""

    code = "cli.database-damaged"
    exit_code = 6
    sentence = "The database {path} is not whole: {reason}."
    hint = "Keep a copy of it as it is, then start from the last backup."


class BackupExists(Conflict):
    code = "cli.backup-exists"
    sentence = "{path} exists already."
    hint = "Name another file, or remove this one."


@click.group()
def db() -> None:
    """The state database."""


@db.command()
@config_options(DEFAULT_CONFIG)
def check(config: Path | None, sets: tuple[str, ...]) -> None:
    """Check that the database is whole and has this release's schema; a coordinator may be running."""
    from coordinator.state.postgresql import shown
    from coordinator.state.upgrade import differences

    settings = load(CoordinatorSettings, config, sets)
    checked(settings)
    where = str(settings.database_file) if settings.state.url is None else shown(settings.state.url)
    found: list[str] = []
    if settings.state.url is None:
        with closing(_reader(settings.database_file)) as conn:
            found = [str(row[0]) for row in conn.execute("PRAGMA integrity_check(20)")]
            found = [] if found == ["ok"] else found
            found += [f"row {row[1]} of {row[0]} names a missing row of {row[2]}" for row in _dangling(conn)]
    if not found:
        with beside(settings) as database:
            found = [str(each) for each in database.read_now(differences)]
    if found:
        raise Damaged(path=where, reason="; ".join(found[:20]))
    click.echo(f"{where}: no problem found.")


@db.command()
@click.argument("file", type=click.Path(path_type=Path))
@config_options(DEFAULT_CONFIG)
def backup(file: Path, config: Path | None, sets: tuple[str, ...]) -> None:
    """Write a copy of the database to FILE; a coordinator may be running.

    Secrets in it stay sealed: keep a copy of the key-encryption key, apart from this one.
    """
    settings = load(CoordinatorSettings, config, sets)
    settings.testing.apply()
    checked(settings)
    if file.exists():
        raise BackupExists(path=str(file))
    with _aside(file) as temp:
        fault_point("backup.begun")
        if settings.state.url is not None:
            copy_to(settings, temp)
        else:
            with closing(_reader(settings.database_file)) as source, closing(sqlite3.connect(temp)) as copy:
                _hold(source)
                source.backup(copy, pages=PAGES, progress=lambda *_: fault_point("backup.pages"))
                copy.execute("PRAGMA journal_mode=DELETE")
        with temp.open("rb") as written:
            os.fsync(written.fileno())
        fault_point("backup.written")
        try:
            os.link(temp, file)
        except FileExistsError:
            raise BackupExists(path=str(file)) from None
        fault_point("backup.named")
    sync_folder(file.parent)
    click.echo(f"{file}: {file.stat().st_size} bytes.")


@contextmanager
def _aside(file: Path) -> Iterator[Path]:
    """A new file beside it, removed at the end; what a backup to this file that was killed has left goes first."""
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # others write a backup here, or the file system has no locks
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for left in file.parent.glob(f".{glob.escape(file.name)}.*.partial*"):
                left.unlink()
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_SH)
        temp = file.with_name(f".{file.name}.{secrets.token_hex(6)}.partial")
        os.close(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        try:
            yield temp
        finally:
            temp.unlink(missing_ok=True)
    finally:
        os.close(folder)


for command in (*COMMANDS, purge, archive, upgrade, online_data_migrations):
    db.add_command(command)


def _reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)


def _dangling(conn: sqlite3.Connection) -> list[tuple[str, int, str, int]]:
    return conn.execute("PRAGMA foreign_key_check").fetchmany(20)


def _hold(source: sqlite3.Connection) -> None:
    """Read it as it is now, whoever writes: SQLite begins a copy anew with each change that it sees."""
    source.execute("BEGIN")
    source.execute("SELECT count(*) FROM sqlite_master").fetchone()
