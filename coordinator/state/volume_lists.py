"""Reading volumes for answers: pages of them, and what belongs to each, in a fixed number of queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, and_, exists, func, select, true

from coordinator.state.paging import Page, count_of, page_of
from coordinator.state.tables.attachments import attachments
from coordinator.state.tables.types import volume_types
from coordinator.state.tables.volumes import volume_admin_metadata, volume_image_metadata, volume_metadata, volumes

SHOWN_ADMIN_KEYS = ("readonly", "attached_mode")
"""Keys of the admin metadata that everybody sees among a volume's metadata."""
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Detail:
    """A volume row with what belongs to it. `metadata` has the shown admin keys in it."""

    row: Row[Any]
    type_name: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    image_metadata: Mapping[str, str] = field(default_factory=dict)
    attachments: Sequence[Row[Any]] = ()


def of_project(project_id: str | None) -> ColumnElement[bool]:
    """Live volumes of one project; None: of all."""
    live = ~volumes.c.deleted
    return live if project_id is None else and_(volumes.c.project_id == project_id, live)


def listing(
    conn: Connection, project_id: str | None, where: Iterable[ColumnElement[bool]], page: Page
) -> Sequence[Row[Any]]:
    """One page; raises NotFound for a marker outside of the project."""
    mine = of_project(project_id)
    return page_of(conn, select(volumes).where(mine, *where), volumes, page, mine)


def count(conn: Connection, project_id: str | None, where: Iterable[ColumnElement[bool]]) -> int:
    return count_of(conn, select(volumes.c.id).where(of_project(project_id), *where))


def details(conn: Connection, rows: Sequence[Row[Any]]) -> list[Detail]:
    """What belongs to these volumes, in the same order."""
    ids = [row.id for row in rows]
    names = type_names(conn, {row.volume_type_id for row in rows})
    plain = pairs(conn, volume_metadata, "volume_id", ids)
    admin = pairs(conn, volume_admin_metadata, "volume_id", ids)
    image = pairs(conn, volume_image_metadata, "volume_id", ids)
    attached: dict[str, list[Row[Any]]] = defaultdict(list)
    for chunk in _chunks(ids):
        query = select(attachments).where(attachments.c.volume_id.in_(chunk), ~attachments.c.deleted)
        for row in conn.execute(query.order_by(attachments.c.created_at, attachments.c.id)):
            attached[row.volume_id].append(row)
    return [
        Detail(
            row,
            names.get(row.volume_type_id),
            {**plain[row.id], **{key: admin[row.id][key] for key in SHOWN_ADMIN_KEYS if key in admin[row.id]}},
            image[row.id],
            attached[row.id],
        )
        for row in rows
    ]


def type_names(conn: Connection, ids: set[str | None]) -> dict[str | None, str]:
    """Names of volume types by id."""
    wanted = [type_id for type_id in ids if type_id is not None]
    if not wanted:
        return {}
    query = select(volume_types.c.id, volume_types.c.name).where(volume_types.c.id.in_(wanted))
    return {row.id: row.name for row in conn.execute(query)}


def pairs(conn: Connection, table: Table, column: str, ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """Keys and values of each of these resources, sorted by key; an empty mapping for one that has none."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for chunk in _chunks(ids):
        query = select(table.c[column], table.c.key, table.c.value).where(table.c[column].in_(chunk))
        for owner, key, value in conn.execute(query.order_by(table.c.key)):
            found[owner][key] = value
    return found


def has_pair(table: Table, column: str, owner: ColumnElement[str], key: str, value: str) -> ColumnElement[bool]:
    """Whether a resource has this key with this value."""
    return exists(
        select(true()).where(table.c[column] == owner, table.c.key == key, table.c.value == value).select_from(table)
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """`size` in GiB; `metadata` maps each key to its values."""

    count: int
    size: int
    metadata: Mapping[str, Sequence[str]]


def summary(
    conn: Connection, project_id: str | None, where: Iterable[ColumnElement[bool]], *, with_metadata: bool
) -> Summary:
    """How many volumes, of what size in all, and with which metadata."""
    chosen = [of_project(project_id), *where]
    total = conn.execute(select(func.count(), func.coalesce(func.sum(volumes.c.size), 0)).where(*chosen)).one()
    values: dict[str, list[str]] = defaultdict(list)
    if with_metadata:
        query = select(volume_metadata.c.key, volume_metadata.c.value).distinct()
        query = query.join(volumes, volumes.c.id == volume_metadata.c.volume_id).where(*chosen)
        for key, value in conn.execute(query.order_by(volume_metadata.c.key, volume_metadata.c.value)):
            values[key].append(value)
    return Summary(int(total[0]), int(total[1]), values)


def _chunks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))
