"""Opening a state directory from a command: as the user that owns it, beside a running coordinator or in its place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agent.base.errors import Conflict, NotFound
from coordinator.server.settings import CoordinatorSettings

if TYPE_CHECKING:
    from coordinator.state.database import Database


class NoSite(NotFound):
    """The state directory holds no database."""

    code = "cli.no-site"
    sentence = "There is no state database {path}."
    hint = "Start the coordinator once, or name its configuration with --config or --set coordinator.state_dir=DIR."


class CoordinatorsRun(Conflict):
    code = "cli.coordinators-run"
    sentence = "Coordinators work on this database: {names}."
    hint = "Stop all of them first; one that was killed counts as gone after 10 seconds."


def checked(settings: CoordinatorSettings) -> None:
    """Raise `NoSite` unless there is a database (one on PostgreSQL is looked for when it is opened)."""
    if settings.state.url is None and not settings.database_file.is_file():
        raise NoSite(path=str(settings.database_file))


def become_owner(settings: CoordinatorSettings) -> None:
    """Root becomes the owner of the state directory for good, so that the service can use what is written."""
    status = settings.state_dir.stat()
    if os.geteuid() == 0 and status.st_uid != 0:
        os.setgroups([])
        os.setresgid(status.st_gid, status.st_gid, status.st_gid)
        os.setresuid(status.st_uid, status.st_uid, status.st_uid)
    os.umask(0o077)


@contextmanager
def in_its_place(
    settings: CoordinatorSettings, *, may_be_new: bool = False, rolling: bool = False
) -> Iterator[Database]:
    """The database while no coordinator runs; with `rolling` they may, where several can be at work at all.

    Raises `DatabaseBusy`, `CoordinatorsRun`, `NoSite`.
    """
    from coordinator.server.start import open_database
    from coordinator.state import coordinators
    from coordinator.state.schema import version

    if not may_be_new:
        checked(settings)
    db = open_database(settings)
    try:
        if not rolling and not db.alone and (db.read_now(version) or "0001") >= "0003":
            alive = db.read_now(coordinators.living)
            if alive:
                raise CoordinatorsRun(names=", ".join(alive))
        yield db
    finally:
        db.close()


@contextmanager
def beside(settings: CoordinatorSettings, *, any_schema: bool = False) -> Iterator[Database]:
    """The database while a coordinator may be running: for short transactions on rows that nobody keeps in memory.

    Raises SchemaTooOld or SchemaTooNew unless it has this release's schema, or `any_schema` will do.
    """
    from sqlalchemy import create_engine, event

    from coordinator.state.database import Database
    from coordinator.state.schema import check, version

    checked(settings)
    if settings.state.url is not None:
        from coordinator.server.start import open_database

        shared = open_database(settings)
        try:
            if not any_schema:
                shared.read_now(lambda conn: check(version(conn) or "none"))
            yield shared
        finally:
            shared.close()
        return
    arguments = {"timeout": 10, "check_same_thread": False, "isolation_level": None}
    engine = create_engine(f"sqlite:///{settings.database_file}", connect_args=arguments)
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON").close())
    db = Database(engine)
    try:
        if not any_schema:
            db.read_now(lambda conn: check(version(conn) or "none"))
        yield db
    finally:
        db.close()
