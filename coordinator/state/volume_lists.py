"""Reading volumes for answers: pages of them, and what belongs to each, in a fixed number of queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, bindparam, exists, func, or_, select, true

from agent.base.errors import NotFound
from coordinator.state.json_rows import as_one_text, lists_column, lists_in, pairs_column, pairs_in
from coordinator.state.paging import Page, count_of, page_of, page_text
from coordinator.state.tables.attachments import attachments
from coordinator.state.tables.types import volume_types
from coordinator.state.tables.volumes import volume_admin_metadata, volume_image_metadata, volume_metadata, volumes

SHOWN_ADMIN_KEYS = ("readonly", "attached_mode", "extend_new_size")
"""Keys of the admin metadata that everybody sees among a volume's metadata."""
_CHUNK = 500
T = TypeVar("T")


class Attached(NamedTuple):
    """An attachment in use, as the details of its volume show it."""

    id: str
    server_id: str | None
    host: str | None
    mountpoint: str | None
    attached_at: str | None
    created_at: str


class Shown(NamedTuple):
    """The columns of a volume that answers show. Times are texts as answers have them, truth values may be numbers."""

    id: str
    project_id: str
    user_id: str
    name: str | None
    description: str | None
    size: int
    status: str
    migration_status: str | None
    availability_zone: str
    host_id: str | None
    backend: str | None
    pool_id: str | None
    cluster_name: str | None
    volume_type_id: str | None
    snapshot_id: str | None
    source_volid: str | None
    bootable: bool
    multiattach: bool
    encryption_key_id: str | None
    use_quota: bool
    group_id: str | None
    created_at: str
    updated_at: str | None


_ATTACHED = ("id", "instance_id", "attached_host", "mountpoint", "attach_time", "created_at")
_WHOLE = select(
    *(volumes.c[name] for name in Shown._fields),
    select(volume_types.c.name)
    .where(volume_types.c.id == volumes.c.volume_type_id)
    .correlate(volumes)
    .scalar_subquery()
    .label("of_type"),
    pairs_column(volume_metadata, "volume_id", volumes.c.id).label("plain"),
    pairs_column(
        volume_admin_metadata,
        "volume_id",
        volumes.c.id,
        # Not IN: its list is spelt out anew at each execution.
        or_(*(volume_admin_metadata.c.key == key for key in SHOWN_ADMIN_KEYS)),
    ).label("admin"),
    pairs_column(volume_image_metadata, "volume_id", volumes.c.id).label("image"),
    lists_column(
        attachments,
        _ATTACHED,
        attachments.c.volume_id == volumes.c.id,
        ~attachments.c.deleted,
        # Not to be looked for by: of two indexes that SQLite thinks as good it takes the one that was made last.
        attachments.c.attach_status + "" == "attached",
    ).label("attached"),
)
_ONE = as_one_text(_WHOLE.where(volumes.c.id == bindparam("wanted"), ~volumes.c.deleted))


class Detail(NamedTuple):
    """A volume row with what belongs to it. `metadata` has the shown admin keys in it; attachments are oldest first."""

    row: Row[Any] | Shown
    type_name: str | None = None
    metadata: Mapping[str, str] = MappingProxyType({})
    image_metadata: Mapping[str, str] = MappingProxyType({})
    attachments: Sequence[Attached] = ()


_LIVE = ~volumes.c.deleted
_MINE = and_(volumes.c.project_id == bindparam("project"), _LIVE)
_PLAIN = select(volumes)
_OF_ALL = {base: base.where(_LIVE) for base in (_PLAIN, _WHOLE)}
_OF_ONE = {base: base.where(_MINE) for base in (_PLAIN, _WHOLE)}


def of_project(project_id: str | None) -> ColumnElement[bool]:
    """Live volumes of one project; None: of all."""
    return _LIVE if project_id is None else and_(volumes.c.project_id == project_id, _LIVE)


def _page(
    of: Callable[..., T], conn: Connection, base: Select[Any], *, project_id: str | None,
    where: Iterable[ColumnElement[bool]], page: Page
) -> T:  # fmt: skip
    """Without filters, the statement is the same for all calls. `of` is `page_of` or `page_text`."""
    conditions = tuple(where)
    if conditions:
        mine = of_project(project_id)
        return of(conn, base.where(mine, *conditions), volumes, page, mine)
    if project_id is None:
        return of(conn, _OF_ALL[base], volumes, page, _LIVE, given={})
    return of(conn, _OF_ONE[base], volumes, page, _MINE, given={"project": project_id})


def listing(
    conn: Connection, project_id: str | None, where: Iterable[ColumnElement[bool]], page: Page
) -> Sequence[Row[Any]]:
    """One page; raises NotFound for a marker outside of the project."""
    return _page(page_of, conn, _PLAIN, project_id=project_id, where=where, page=page)


def count(conn: Connection, project_id: str | None, where: Iterable[ColumnElement[bool]]) -> int:
    return count_of(conn, select(volumes.c.id).where(of_project(project_id), *where))


def detail(conn: Connection, volume_id: str) -> Detail:
    """One live volume of any project, in one query; raises NotFound."""
    found = lists_in(conn.execute(_ONE, {"wanted": volume_id}).scalar_one())
    if not found:
        raise NotFound(noun="Volume", id=volume_id)
    return _detail(found[0])


def details(conn: Connection, project_id: str | None, where: Iterable[ColumnElement[bool]], page: Page) -> list[Detail]:
    """One page with all that belongs to each, in one query; raises NotFound for a marker outside of the project."""
    found = _page(page_text, conn, _WHOLE, project_id=project_id, where=where, page=page)
    return [_detail(values) for values in found]


_OWN = len(Shown._fields)


def _detail(values: list[Any]) -> Detail:
    of_type, plain, admin, image, attached = values[_OWN:]
    metadata = pairs_in(plain) | pairs_in(admin)
    return Detail(Shown._make(values[:_OWN]), of_type, metadata, pairs_in(image), _attached(attached))


def _attached(value: str | list[list[Any]] | None) -> list[Attached]:
    rows = [Attached._make(values) for values in lists_in(value)]
    return sorted(rows, key=lambda item: (item.created_at, item.id)) if len(rows) > 1 else rows


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
    """Whether a resource has this key with this value; `owner` is the id in its own table."""
    query = select(true()).where(table.c[column] == owner, table.c.key == key, table.c.value == value)
    # The resource alone is that of the query around, which may read the pairs, too.
    return exists(query.select_from(table).correlate(*owner._from_objects))


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
