"""Rows of the image cache: what is kept, what is being filled, what is on its way out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from coordinator.state.locks import hold_name
from coordinator.state.news import CACHED, ring
from coordinator.state.operations import is_active
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import pools
from coordinator.state.tables.image_cache import image_cache as table
from coordinator.state.tables.operations import operations
from coordinator.state.tables.volumes import volumes


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a back end's cache; 0: none."""

    gib: int = 0
    count: int = 0


def limits(conn: Connection, pool_id: str) -> tuple[str, Limits] | None:
    """The place of a pool's cache and its limits; None for a pool that keeps no images."""
    query = select(pools.c.reported, pools.c.cluster_name, pools.c.name).where(pools.c.id == pool_id)
    row = conn.execute(query).one_or_none()
    said = (row.reported or {}) if row is not None else {}
    if row is None or not said.get("image_cache"):
        return None
    place = f"{row.cluster_name}#{row.name}" if row.cluster_name else pool_id
    return place, Limits(int(said.get("image_cache_max_gib", 0)), int(said.get("image_cache_max_count", 0)))


def hold(conn: Connection, place: str) -> None:
    """One decides at a time what is kept in a place."""
    hold_name(conn, f"image-cache {place}")


def of_place(conn: Connection, place: str) -> list[Row[Any]]:
    """What is kept or being filled there, least recently used first, with the status of its volume."""
    columns: list[Any] = [*table.c, volumes.c.status]
    query = (
        select(*columns)
        .join(volumes, volumes.c.id == table.c.volume_id)
        .where(table.c.place == place, ~table.c.leaving, ~volumes.c.deleted)
        .order_by(table.c.last_used, table.c.volume_id)
    )
    return list(conn.execute(query))


def get(conn: Connection, volume_id: str) -> Row[Any] | None:
    return conn.execute(select(table).where(table.c.volume_id == volume_id)).one_or_none()


def is_filled_by_another(conn: Connection, place: str, image_id: str, version: str, operation_id: str) -> bool:
    """Whether somebody at work is about to make it ready."""
    query = (
        select(table.c.volume_id)
        .join(operations, operations.c.id == table.c.operation_id)
        .where(table.c.place == place, table.c.image_id == image_id, table.c.version == version)
        .where(~table.c.leaving, ~table.c.ready, table.c.operation_id != operation_id, is_active())
    )
    return conn.execute(query.limit(1)).first() is not None


def add(conn: Connection, **values: Any) -> None:
    conn.execute(insert(table).values(last_used=utcnow(), **values))


def put(conn: Connection, volume_id: str, **values: Any) -> None:
    """Nothing there is fine."""
    if conn.execute(update(table).where(table.c.volume_id == volume_id).values(**values)).rowcount:
        ring(conn, CACHED)


def used(conn: Connection, volume_id: str) -> None:
    conn.execute(update(table).where(table.c.volume_id == volume_id).values(last_used=utcnow()))


def images(conn: Connection) -> list[str]:
    """Those that are kept anywhere, or are about to be."""
    return list(conn.execute(select(table.c.image_id).where(~table.c.leaving).distinct()).scalars())


def of_image(conn: Connection, image_id: str) -> list[Row[Any]]:
    """What is kept of it, or about to be, with where its volume lies and whose that is."""
    columns = [getattr(volumes.c, name) for name in ("host_id", "backend", "pool", "project_id", "user_id")]
    query = select(table.c.volume_id, table.c.version, *columns).join(volumes, volumes.c.id == table.c.volume_id)
    return list(conn.execute(query.where(table.c.image_id == image_id, ~table.c.leaving)))


def drop(conn: Connection, volume_id: str) -> None:
    """Forget it; nothing there is fine."""
    if conn.execute(delete(table).where(table.c.volume_id == volume_id)).rowcount:
        ring(conn, CACHED)


def leaving(conn: Connection, most: int) -> list[str]:
    """Volumes that are to go, or are gone already."""
    query = select(table.c.volume_id).outerjoin(volumes, volumes.c.id == table.c.volume_id)
    gone = or_(table.c.leaving, volumes.c.id.is_(None), volumes.c.deleted)
    return list(conn.execute(query.where(gone).order_by(table.c.last_used).limit(most)).scalars())
