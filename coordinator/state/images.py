"""Image rows and their properties. A status moves through `coordinator.state.transition` alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Connection, Row, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from coordinator.state.locks import held
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.fleet import hosts, pools
from coordinator.state.tables.images import image_properties, images

OPEN_TO_ALL = ("public", "community")
SORT_KEYS = ("created_at", "updated_at", "name", "id", "size", "status", "disk_format", "container_format")


class has_element(FunctionElement[bool]):  # noqa: N801 - reads as the SQL function it is
    """Whether a JSON list holds a string."""

    type = Boolean()
    inherit_cache = True


@compiles(has_element, "sqlite")
def _sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    column, value = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"EXISTS (SELECT 1 FROM json_each({column}) AS one WHERE one.value = {value})"  # noqa: S608 - parameters


@compiles(has_element, "postgresql")
def _postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    column, value = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"jsonb_exists(CAST({column} AS jsonb), {value})"


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to. `project_id` None sees all; `listed` hides other projects' community images."""

    project_id: str | None = None
    owner: str | None = None
    visibility: str | None = None
    equal: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    size_min: int | None = None
    size_max: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """`sort` is (key, "asc" | "desc"); the id is always the last key, so that paging is total."""

    limit: int
    marker: str | None = None
    sort: tuple[tuple[str, str], ...] = (("created_at", "desc"),)


def get(conn: Connection, image_id: str) -> Row[Any] | None:
    """A live image."""
    return conn.execute(held(conn, select(images).where(images.c.id == image_id, ~images.c.deleted))).one_or_none()


def with_any_state(conn: Connection, image_id: str) -> Row[Any] | None:
    """An image row whether deleted or not, for the end of operations."""
    return conn.execute(held(conn, select(images).where(images.c.id == image_id))).one_or_none()


def set_values(conn: Connection, image_id: str, **values: Any) -> None:
    """Set columns other than the status."""
    assert not {"status", "deleted"} & values.keys(), "a status moves only along its table"
    conn.execute(update(images).where(images.c.id == image_id).values(**{"updated_at": utcnow(), **values}))


def properties(conn: Connection, image_ids: Iterable[str]) -> dict[str, dict[str, str]]:
    """Properties by image id, for all the given images in one query."""
    ids = list(image_ids)
    found: dict[str, dict[str, str]] = {image_id: {} for image_id in ids}
    for row in conn.execute(select(image_properties).where(image_properties.c.image_id.in_(ids))):
        found[row.image_id][row.key] = row.value
    return found


def put_properties(conn: Connection, image_id: str, values: Mapping[str, str]) -> None:
    """Replace all properties of an image."""
    conn.execute(delete(image_properties).where(image_properties.c.image_id == image_id))
    if values:
        rows = [{"image_id": image_id, "key": key, "value": value} for key, value in values.items()]
        conn.execute(insert(image_properties), rows)


def listing(conn: Connection, filters: Filters, page: Page) -> Sequence[Row[Any]]:
    """One page; an unknown marker gives an empty page (the caller checks it)."""
    query = select(images).where(~images.c.deleted, *_conditions(filters)).limit(page.limit)
    keys = [*page.sort, *([("id", page.sort[-1][1])] if "id" not in dict(page.sort) else [])]
    for key, direction in keys:
        column = images.c[key]
        query = query.order_by(column.desc().nulls_last() if direction == "desc" else column.asc().nulls_first())
    if page.marker is not None:
        last = conn.execute(select(images).where(images.c.id == page.marker)).one_or_none()
        if last is None:
            return []
        query = query.where(_after(keys, last))
    return conn.execute(query).all()


def _conditions(filters: Filters) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if filters.project_id is not None:
        mine = images.c.owner == filters.project_id
        open_to_me = images.c.visibility.in_(OPEN_TO_ALL if filters.visibility == "community" else ("public",))
        found.append(or_(mine, open_to_me))
    if filters.owner is not None:
        found.append(images.c.owner == filters.owner)
    if filters.visibility is not None:
        found.append(images.c.visibility == filters.visibility)
    found += [images.c[name] == value for name, value in filters.equal.items()]
    if filters.size_min is not None:
        found.append(images.c.size >= filters.size_min)
    if filters.size_max is not None:
        found.append(images.c.size <= filters.size_max)
    for key, value in filters.properties.items():
        found.append(
            exists(
                select(image_properties.c.key).where(
                    image_properties.c.image_id == images.c.id,
                    image_properties.c.key == key,
                    image_properties.c.value == value,
                )
            )
        )
    found += [has_element(images.c.tags, tag) for tag in filters.tags]
    return found


def _after(keys: Sequence[tuple[str, str]], last: Row[Any]) -> ColumnElement[bool]:
    """Rows behind `last` in the given order; a missing value sorts as the smallest one."""
    ways: list[ColumnElement[bool]] = []
    same: list[ColumnElement[bool]] = []
    for key, direction in keys:
        column, value = images.c[key], getattr(last, key)
        if direction == "desc":
            beyond = or_(column < value, column.is_(None)) if value is not None else None
        else:
            beyond = column > value if value is not None else column.is_not(None)
        if beyond is not None:
            ways.append(and_(*same, beyond))
        same.append(column == value if value is not None else column.is_(None))
    return or_(*ways)


def store_host(conn: Connection) -> str | None:
    """The reachable host that keeps images and has the most free bytes; None when there is none."""
    free = select(func.coalesce(func.max(pools.c.free_bytes), 0)).where(pools.c.host_id == hosts.c.id).scalar_subquery()
    query = (
        select(hosts.c.id)
        .where(hosts.c.keeps_images, hosts.c.reachable, hosts.c.enabled)
        .order_by(free.desc(), hosts.c.id)
        .limit(1)
    )
    return conn.execute(query).scalar_one_or_none()
