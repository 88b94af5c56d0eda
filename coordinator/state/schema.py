"""The schema's version: a new database is made in one go, an older one is upgraded, a newer one is refused."""

from __future__ import annotations

from sqlalchemy import Connection, inspect, text

from coordinator.state.errors import SchemaTooNew, SchemaTooOld
from coordinator.state.locks import hold_name
from coordinator.state.tables import load_all

HEAD = "0020"
RELEASED = tuple(f"{number:04}" for number in range(1, int(HEAD) + 1))
"""All versions that a release has had, oldest first; the last is this one's."""


def prepare(conn: Connection) -> None:
    """Make the schema where there is none; raises SchemaTooNew or SchemaTooOld where it is not this release's."""
    hold_name(conn, "schema")
    found = version(conn)
    if found is None:
        load_all().create_all(conn)
        conn.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
        conn.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})
        return
    check(found)
    load_all()


def version(conn: Connection) -> str | None:
    """The version that the database says it has; None for an empty one."""
    if not inspect(conn).has_table("alembic_version"):
        return None
    return conn.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def check(found: str) -> None:
    """Raise unless `found` is this release's version."""
    if found == HEAD:
        return
    if found in RELEASED:
        raise SchemaTooOld(found=found, known=HEAD)
    raise SchemaTooNew(found=found, known=HEAD)
