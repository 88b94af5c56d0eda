"""Which coordinators are alive: each says so in its own row, by the clock of the database."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from coordinator.state.clock import database_now
from coordinator.state.operations import LEASE_S
from coordinator.state.tables.coordinators import coordinators

_FORGOTTEN_S = 86400.0


def alive(conn: Connection, owner: str, host: str, version: str) -> None:
    """Say that this one is alive for as long as a lease lasts."""
    until = database_now() + LEASE_S
    said = update(coordinators).where(coordinators.c.id == owner).values(alive_until=until)
    if conn.execute(said).rowcount == 0:
        conn.execute(insert(coordinators).values(id=owner, host=host, version=version, alive_until=until))
        conn.execute(delete(coordinators).where(coordinators.c.alive_until < database_now() - _FORGOTTEN_S))


def gone(conn: Connection, owner: str) -> None:
    """This one stops."""
    conn.execute(delete(coordinators).where(coordinators.c.id == owner))


def living(conn: Connection) -> list[str]:
    """Those that are alive, in a fixed order."""
    query = select(coordinators.c.id).where(coordinators.c.alive_until > database_now())
    return list(conn.execute(query.order_by(coordinators.c.id)).scalars())


def releases(conn: Connection) -> set[str]:
    """The releases that are alive; none on SQLite, where nobody else can be."""
    query = select(coordinators.c.version).where(coordinators.c.alive_until > database_now())
    return set(conn.execute(query.distinct()).scalars())
