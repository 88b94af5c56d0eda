"""`db backup` of a shared database, `db restore`, `db move`, `db adopted`: whole states carried from place to place."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.base.config import load
from agent.base.errors import Conflict, NotFound, Permanent
from agent.base.faults import declare, fault_point
from agent.base.files import sync_folder
from agent.base.terminal.config import config_options
from coordinator.cli.offline.site import become_owner, beside, in_its_place
from coordinator.server.settings import DEFAULT_CONFIG, CoordinatorSettings

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from coordinator.state.database import Database

declare("move.carried", "move.shared", "move.put-away")


class NotABackup(Permanent):
    code = "cli.not-a-backup"
    exit_code = 6
    sentence = "{path} can not be restored: {reason}."
    hint = "Name a file that db backup of this release wrote; one of an older release is upgraded first (db upgrade)."


class StateThere(Conflict):
    code = "cli.state-there"
    sentence = "The database {where} has rows already."
    hint = "To put the backup in their place, give --replace; make a backup of what is there first."


class NothingToMove(NotFound):
    code = "cli.nothing-to-move"
    sentence = "There is no {path} to move."
    hint = "Name the state directory that holds it, and the PostgreSQL database in state.url."


class NoTarget(Conflict):
    code = "cli.no-target"
    sentence = "The configuration names no PostgreSQL database to move to."
    hint = "Set state.url, and state.password_file where it is needed."


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--replace", is_flag=True, help="Drop the rows that are there now.")
@click.option("--dry-run", is_flag=True, help="Only tell which rows would be dropped and put there; change nothing.")
@config_options(DEFAULT_CONFIG)
def restore(file: Path, *, replace: bool, dry_run: bool, config: Path | None, sets: tuple[str, ...]) -> None:
    """Put the backup FILE in the place of the state. Stop all coordinators first.

    Hosts may know of more than the backup: nothing is deleted or detached until you have looked at the differences
    (brickyard issue list) and said so (db adopted). Killed at any moment, the old state or the new one is there.
    """
    from sqlalchemy import Connection

    from coordinator.state.rows import carry, is_empty
    from coordinator.state.schema import prepare
    from coordinator.state.site import begin_anew, incarnation

    settings = load(CoordinatorSettings, config, sets)
    settings.testing.apply()
    if not file.is_file():
        raise NotABackup(path=str(file), reason="there is no such file")
    engine = _opened_backup(file)
    if dry_run:
        _tell_plan(settings, engine, replace)
        return
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    become_owner(settings)
    with in_its_place(settings, may_be_new=True) as database:

        def into(target: Connection) -> dict[str, int]:
            prepare(target)
            if not replace and not is_empty(target):
                raise StateThere(where=settings.state.url or str(settings.database_file))
            former = incarnation(target)
            with engine.connect() as source:
                counts = carry(source, target)
            begin_anew(target, adopt=True, former=former)
            return counts

        counts = database.write_now(into)
    engine.dispose()
    click.echo(f"Restored {sum(counts.values())} rows. Start the coordinators, look at the differences with")
    click.echo("  brickyard issue list")
    click.echo("and when they are mended run: brickyard-coordinator db adopted")


def _tell_plan(settings: CoordinatorSettings, backup: Engine, replace: bool) -> None:
    """What would be lost and what would come, by table; a coordinator may be running. Raises StateThere as the deed."""
    from coordinator.state.rows import counts
    from coordinator.state.schema import check, version

    there: dict[str, int] = {}
    if settings.state.url is not None or settings.database_file.is_file():
        if settings.state_dir.is_dir():
            become_owner(settings)
        with beside(settings, any_schema=True) as database:
            found = database.read_now(version)
            if found is not None:
                check(found)
                there = database.read_now(counts)
    if there and not replace:
        raise StateThere(where=settings.state.url or str(settings.database_file))
    with backup.connect() as source:
        coming = counts(source)
    backup.dispose()
    for name in sorted({*there, *coming}):
        click.echo(f"{name}: {there.get(name, 0)} would be dropped, {coming.get(name, 0)} put there")
    click.echo("Nothing was changed.")


@click.command()
@config_options(DEFAULT_CONFIG)
def move(config: Path | None, sets: tuple[str, ...]) -> None:
    """Carry the state from SQLite into the empty PostgreSQL database of state.url, compared row by row.

    Stop the coordinator first. The CA and the token keys go along, sealed. Afterwards the old file is called
    coordinator.db.moved, so that it can not be used by mistake. Killed at any moment, run it again.
    """
    from sqlalchemy import Connection

    from coordinator.server.start import open_database
    from coordinator.state.database import Database
    from coordinator.state.rows import carry, is_empty
    from coordinator.state.schema import check, prepare, version
    from coordinator.state.site import begin_anew, begin_move, end_move, is_moved

    settings = load(CoordinatorSettings, config, sets)
    settings.testing.apply()
    path = settings.database_file
    if settings.state.url is None:
        raise NoTarget
    if not path.is_file():
        raise NothingToMove(path=str(path))
    become_owner(settings)
    with closing(Database.sqlite(path)) as old, closing(open_database(settings)) as new:
        old.read_now(lambda conn: check(version(conn) or "none"))
        mark = old.write_now(begin_move)

        def into(target: Connection) -> dict[str, int]:
            prepare(target)
            if is_moved(target, mark):
                return {}
            if not is_empty(target):
                raise StateThere(where=settings.state.url or "")
            counts = old.read_now(lambda source: carry(source, target))
            begin_anew(target, adopt=False)
            return counts

        counts = new.write_now(into)
        fault_point("move.carried")
        _share_roots(settings, new)
        fault_point("move.shared")
        with closing(sqlite3.connect(path)) as last:
            last.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        path.rename(path.with_name(path.name + ".moved"))
        sync_folder(path.parent)
        fault_point("move.put-away")
        new.write_now(end_move)
    told = f"Moved {sum(counts.values())} rows in {len(counts)} tables, each compared." if counts else "Moved before."
    click.echo(f"{told} Start the coordinator.")


@click.command()
@config_options(DEFAULT_CONFIG)
def adopted(config: Path | None, sets: tuple[str, ...]) -> None:
    """Say that the differences after a restore were looked at; coordinators may be running."""
    from coordinator.state.site import adopted as end

    settings = load(CoordinatorSettings, config, sets)
    with beside(settings) as database:
        was = database.write_now(end)
    click.echo("The site is adopted: all work goes on." if was else "There was nothing to adopt.")


def copy_to(settings: CoordinatorSettings, temp: Path) -> None:
    """Write a backup of the shared database into the (empty) file `temp`: the same kind of file as of SQLite."""
    from coordinator.state.rows import carry
    from coordinator.state.schema import prepare

    engine = _engine(temp)
    try:
        with beside(settings) as database, engine.connect() as copy:
            copy.exec_driver_sql("BEGIN IMMEDIATE")
            prepare(copy)
            database.read_now(lambda source: carry(source, copy))
            copy.exec_driver_sql("COMMIT")
            copy.exec_driver_sql("PRAGMA journal_mode=DELETE")
    finally:
        engine.dispose()


def _opened_backup(file: Path) -> Engine:
    from agent.base.errors import BrickyardError
    from coordinator.state.schema import check, version

    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as raw:
            found = [str(row[0]) for row in raw.execute("PRAGMA integrity_check(5)")]
        if found != ["ok"]:
            raise NotABackup(path=str(file), reason="; ".join(found))
        engine = _engine(file)
        with engine.connect() as conn:
            check(version(conn) or "none")
    except sqlite3.DatabaseError as error:
        raise NotABackup(path=str(file), reason=str(error)) from None
    except BrickyardError as error:
        if isinstance(error, NotABackup):
            raise
        raise NotABackup(path=str(file), reason=str(error).rstrip(".")) from None
    return engine


def _engine(file: Path) -> Engine:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import StaticPool

    return create_engine(
        f"sqlite:///{file}", poolclass=StaticPool, connect_args={"isolation_level": None, "timeout": 10}
    )  # fmt: skip


def _share_roots(settings: CoordinatorSettings, database: Database) -> None:
    """The CA and the token keys that lie in files are put into the database."""
    from coordinator.enrolment.authority import SiteAuthority
    from coordinator.server.start import ca_store, key_store, token_keys

    keys = key_store(settings, database)
    SiteAuthority.open(ca_store(settings, database, keys))
    token_keys(settings, database, keys)


COMMANDS = (restore, move, adopted)
