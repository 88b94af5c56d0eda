"""What each project uses, by volume type: counted from the rows, or kept beside them in the same transaction.

Where sums are kept, `transition` and the repositories tell of every change of a counted column: `before` takes the row
as it was, `changed` books the difference. Both ways give the same (`differences`), whatever is killed when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, Table, bindparam, delete, func, insert, select, text, update

from coordinator.state.locks import beside_others, held
from coordinator.state.tables.quotas import quota_usages
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volumes
from coordinator.state.together import fresh, known, once, shared

RULES = "brickyard_usage_rules"
_COLUMNS = frozenset({"project_id", "size", "reserved_size", "volume_type_id", "use_quota", "volume_size", "deleted"})


@dataclass(frozen=True, slots=True)
class Rules:
    """How this site counts: `kept` sums beside the rows, whether snapshots take gigabytes, and whether projects that
    lie below others share what those have (`nested`)."""

    kept: bool = False
    snapshots_take_space: bool = True
    nested: bool = False


class Amounts(NamedTuple):
    """Of one type in one project, sizes in GiB. `reserved` is what extends under way need."""

    volumes: int = 0
    gigabytes: int = 0
    reserved: int = 0
    snapshots: int = 0
    snapshot_gigabytes: int = 0

    def plus(self, other: Amounts, sign: int = 1) -> Amounts:
        return Amounts(*(mine + sign * theirs for mine, theirs in zip(self, other, strict=True)))


NOTHING = Amounts()
Key = tuple[str, str]
"""Project and volume type; an empty text for no type."""


def _counted(table: Table, *amounts: Any) -> Select[Any]:
    """Grouped in the order of the index, which holds all that is asked for."""
    live = (~table.c.deleted, table.c.use_quota)
    return select(table.c.volume_type_id, func.count(), *amounts).where(*live).group_by(table.c.volume_type_id)


_VOLUMES = _counted(volumes, func.sum(volumes.c.size), func.sum(volumes.c.reserved_size))
_SNAPSHOTS = _counted(snapshots, func.sum(snapshots.c.volume_size))
_OF_PROJECT = (
    _VOLUMES.where(volumes.c.project_id == bindparam("project")),
    _SNAPSHOTS.where(snapshots.c.project_id == bindparam("project")),
)
_KEPT = select(quota_usages).where(quota_usages.c.project_id == bindparam("project"))


def rules(conn: Connection) -> Rules:
    """How the database that this connection is of was opened to count."""
    found = conn.get_execution_options().get(RULES)
    return found if isinstance(found, Rules) else Rules()


def by_type(conn: Connection, project_id: str) -> dict[str, Amounts]:
    """What a project uses, by id of the volume type."""
    if rules(conn).kept:
        found = conn.execute(_KEPT, {"project": project_id})
        return {row.volume_type_id: _of(row) for row in found}
    return once(conn, ("usage", project_id), lambda: _with_fresh(conn, project_id, counted(conn, project_id)))


def _with_fresh(conn: Connection, project_id: str, found: dict[str, Amounts]) -> dict[str, Amounts]:
    for row in fresh(conn, "volume"):
        if row["project_id"] == project_id and row["use_quota"]:
            mine, type_id = Amounts(1, row["size"], row["reserved_size"]), row["volume_type_id"] or ""
            found[type_id] = found.get(type_id, NOTHING).plus(mine)
    return found


def counted(conn: Connection, project_id: str) -> dict[str, Amounts]:
    """Like `by_type`, always from the rows."""
    found: dict[str, Amounts] = {}
    for type_id, count, size, reserved in conn.execute(_OF_PROJECT[0], {"project": project_id}):
        found[type_id or ""] = Amounts(int(count), int(size), int(reserved))
    for type_id, count, size in conn.execute(_OF_PROJECT[1], {"project": project_id}):
        mine = Amounts(snapshots=int(count), snapshot_gigabytes=int(size))
        found[type_id or ""] = found.get(type_id or "", NOTHING).plus(mine)
    return found


def before(conn: Connection, table: Table, wanted: str, values: Iterable[str]) -> Row[Any] | None:
    """The row as it is, when sums are kept and one of `values` is counted; hand it to `changed`."""
    if table not in {volumes, snapshots} or not rules(conn).kept or not _COLUMNS.intersection(values):
        return None
    return conn.execute(held(conn, select(table).where(table.c.id == wanted))).one_or_none()


def changed(conn: Connection, was: Row[Any] | None, now: Row[Any] | None) -> None:
    """Book what a counted row has become; `was` None: it is new. Where no sums are kept only who has counted hears."""
    kept = rules(conn).kept
    if not kept and shared(conn) is None:
        return
    changes: dict[Key, Amounts] = {}
    for row, sign in ((was, -1), (now, 1)):
        if row is not None and row.use_quota and not row.deleted:
            key = (row.project_id, row.volume_type_id or "")
            changes[key] = changes.get(key, NOTHING).plus(_share(row), sign)
    for key, amounts in sorted(changes.items()):  # in one order, lest two writers wait for each other
        if amounts != NOTHING and kept:
            _book(conn, key, amounts)
        elif (mine := known(conn, ("usage", key[0]))) is not None:
            mine[key[1]] = mine.get(key[1], NOTHING).plus(amounts)


def is_counted(table: Table) -> bool:
    """Whether rows of this table count."""
    return table in {volumes, snapshots}


def _share(row: Row[Any]) -> Amounts:
    if "volume_size" in row._mapping:
        return Amounts(snapshots=1, snapshot_gigabytes=row.volume_size)
    return Amounts(volumes=1, gigabytes=row.size, reserved=row.reserved_size)


def _book(conn: Connection, key: Key, amounts: Amounts) -> None:
    table = quota_usages
    values = {name: table.c[name] + amount for name, amount in amounts._asdict().items() if amount}
    mine = (table.c.project_id == key[0], table.c.volume_type_id == key[1])
    if conn.execute(update(table).where(*mine).values(values)).rowcount == 0:
        # Another writer may insert it at the same moment: one of the two runs again, and finds it.
        conn.execute(insert(table).values(project_id=key[0], volume_type_id=key[1], **amounts._asdict()))


def _of(row: Row[Any]) -> Amounts:
    return Amounts(*(getattr(row, name) for name in Amounts._fields))


def recount(conn: Connection) -> None:
    """Make the kept sums anew from the rows, in the caller's write; other writers wait for its end."""
    sums = _all(conn)
    conn.execute(delete(quota_usages))
    if sums:
        rows = [{"project_id": key[0], "volume_type_id": key[1], **amounts._asdict()} for key, amounts in sums.items()]
        conn.execute(insert(quota_usages), rows)


def forget(conn: Connection) -> None:
    """Drop the kept sums."""
    conn.execute(delete(quota_usages))


def differences(conn: Connection) -> list[tuple[Key, Amounts, Amounts]]:
    """Where a kept sum is not what the rows give: key, kept, counted. In the caller's write, like `recount`."""
    counted_now = _all(conn)
    kept = {(row.project_id, row.volume_type_id): _of(row) for row in conn.execute(select(quota_usages))}
    pairs = ((key, kept.get(key, NOTHING), counted_now.get(key, NOTHING)) for key in sorted({*kept, *counted_now}))
    return [(key, one, other) for key, one, other in pairs if one != other]


def _all(conn: Connection) -> Mapping[Key, Amounts]:
    if beside_others(conn):
        conn.execute(text("LOCK TABLE volumes, snapshots, quota_usages IN SHARE ROW EXCLUSIVE MODE"))
    found: dict[Key, Amounts] = {}
    for query, table, names in ((_VOLUMES, volumes, ("volumes", "gigabytes", "reserved")),
                                (_SNAPSHOTS, snapshots, ("snapshots", "snapshot_gigabytes"))):  # fmt: skip
        for row in conn.execute(query.add_columns(table.c.project_id).group_by(table.c.project_id)):
            type_id, *amounts, project_id = row
            key = (project_id, type_id or "")
            mine = Amounts(**dict(zip(names, map(int, amounts), strict=True)))
            found[key] = found.get(key, NOTHING).plus(mine)
    return found
