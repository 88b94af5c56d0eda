"""Volume rows."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    String,
    Table,
    any_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    update,
)

from agent.base.errors import NotFound
from agent.wire.results import pool_address
from coordinator.state import usage
from coordinator.state.locks import Holding
from coordinator.state.tables.attachments import attachments
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volume_admin_metadata, volume_image_metadata, volume_metadata, volumes
from coordinator.state.together import Act, amend, hopeful, later, note, once, shared

GIB = 1 << 30
# Built once: putting a statement together costs more than running it, and these run in every operation.
_ANY = Holding(select(volumes).where(volumes.c.id == bindparam("wanted")))
_LIVE = Holding(_ANY.plain.where(~volumes.c.deleted))
_SET = update(volumes).where(volumes.c.id == bindparam("wanted"))
_SET_AND_READ = _SET.returning(volumes)


def _adding(table: Table) -> Act:
    return lambda conn, rows: conn.execute(insert(table), rows)


_ADD_PAIRS, _ADD_ADMIN_PAIRS = _adding(volume_metadata), _adding(volume_admin_metadata)


def backend_of(row: Row[Any]) -> str:
    """How a volume's host calls the place where it lies."""
    return pool_address(row.backend, row.pool)


def get(conn: Connection, volume_id: str, project_id: str | None = None) -> Row[Any]:
    """A live volume; `project_id` None sees all. Raises NotFound, also for a foreign project's volume."""
    row = conn.execute(_LIVE.of(conn), {"wanted": volume_id}).one_or_none()
    if row is None or (project_id is not None and row.project_id != project_id):
        raise NotFound(noun="Volume", id=volume_id)
    return row


def with_any_state(conn: Connection, volume_id: str) -> Row[Any] | None:
    """A volume row whether deleted or not, for the end of operations."""
    asked = {"wanted": volume_id}
    return once(conn, ("volume", volume_id), lambda: conn.execute(_ANY.of(conn), asked).one_or_none())


def know_all(conn: Connection, ids: list[str]) -> None:
    """Hold and note the rows that calls of one company will ask for by `with_any_state`.

    One that another writer has is left to the call that asks for it: its company does not wait for that.
    """
    from sqlalchemy.dialects.postgresql import ARRAY

    rows = select(volumes).where(volumes.c.id == any_(bindparam("ids", type_=ARRAY(String))))
    for row in conn.execute(rows.with_for_update(skip_locked=True, key_share=True), {"ids": ids}):
        note(conn, ("volume", row.id), row)


def foreseen(conn: Connection, row: Row[Any], values: dict[str, Any], where: str = "true") -> Row[Any]:
    """In a hopeful transaction: what the row will be, when `values` are set (and `where` holds) at its end."""
    from coordinator.state import combined

    if not amend(conn, ("volume", row.id), values):
        later(conn, combined.updating(volumes, tuple(sorted(values)), where=where), {"id": row.id, **values})
    now = combined.altered(volumes, row, values)
    note(conn, ("volume", row.id), now)
    return now


def set_values(conn: Connection, volume_id: str, **values: Any) -> None:
    """Set columns other than the status."""
    assert not {"status", "deleted"} & values.keys(), "a status moves only along its table"
    was = usage.before(conn, volumes, volume_id, values)
    known = with_any_state(conn, volume_id) if was is None and hopeful(conn) else None
    if known is not None:
        foreseen(conn, known, {"updated_at": utcnow(), **values})
        return
    wanted = {"wanted": volume_id, "updated_at": utcnow(), **values}
    if shared(conn) is None:
        conn.execute(_SET, wanted)
    else:
        note(conn, ("volume", volume_id), conn.execute(_SET_AND_READ, wanted).one_or_none())
    if was is not None:
        usage.changed(conn, was, with_any_state(conn, volume_id))


def put_metadata(conn: Connection, volume_id: str, values: dict[str, str], *, admin: bool = False) -> None:
    """Add metadata rows of a new volume."""
    table = volume_admin_metadata if admin else volume_metadata
    if not admin:
        note(conn, ("volume-metadata", volume_id), values)
    if values:
        rows = [{"volume_id": volume_id, "key": key, "value": value} for key, value in values.items()]
        if not hopeful(conn):
            conn.execute(insert(table), rows)
            return
        for row in rows:  # behind the volume, which may be still to be inserted
            later(conn, _ADD_ADMIN_PAIRS if admin else _ADD_PAIRS, row)


def put_image_metadata(conn: Connection, volume_id: str, values: dict[str, str]) -> None:
    """Replace what the volume remembers of its image."""
    conn.execute(delete(volume_image_metadata).where(volume_image_metadata.c.volume_id == volume_id))
    if values:
        rows = [{"volume_id": volume_id, "key": key, "value": value} for key, value in values.items()]
        conn.execute(insert(volume_image_metadata), rows)


def copy_image_metadata(conn: Connection, source_id: str, volume_id: str) -> None:
    """A clone remembers the image of its source."""
    table = volume_image_metadata
    found = conn.execute(select(table.c.key, table.c.value).where(table.c.volume_id == source_id)).all()
    put_image_metadata(conn, volume_id, {row.key: row.value for row in found})


def has_no_snapshots(volume_id: str) -> ColumnElement[bool]:
    """Guard: no live snapshot of this volume."""
    return ~exists(select(snapshots.c.id).where(snapshots.c.volume_id == volume_id, ~snapshots.c.deleted))


def has_no_attachments(volume_id: str) -> ColumnElement[bool]:
    """Guard: no live attachment of this volume."""
    return ~exists(select(attachments.c.id).where(attachments.c.volume_id == volume_id, ~attachments.c.deleted))


def is_not_shared(volume_id: str) -> ColumnElement[bool]:
    """Guard: one live attachment of this volume at most."""
    live = select(func.count()).where(attachments.c.volume_id == volume_id, ~attachments.c.deleted)
    return live.scalar_subquery() <= 1


def is_not_being_taken(volume_id: str) -> ColumnElement[bool]:
    """Guard: no snapshot of this volume is being taken just now."""
    return ~exists(being_taken(volume_id))


def being_taken(volume_id: str) -> Select[tuple[str]]:
    """The snapshots of this volume that are being taken just now, by id."""
    taken = (snapshots.c.volume_id == volume_id, snapshots.c.status == "creating", ~snapshots.c.deleted)
    return select(snapshots.c.id).where(*taken)


def is_no_source(
    *, volume_id: str | None = None, snapshot_id: str | None = None, below: int | None = None
) -> ColumnElement[bool]:
    """Guard: nothing (of less than `below` GiB) is being made from this volume or snapshot just now."""
    return ~exists(being_made(volume_id=volume_id, snapshot_id=snapshot_id, below=below))


def being_made(
    *, volume_id: str | None = None, snapshot_id: str | None = None, below: int | None = None
) -> Select[tuple[str]]:
    """The volumes that are being made from this volume or snapshot just now, by id."""
    made = volumes.alias("made")
    origin = made.c.source_volid == volume_id if volume_id is not None else made.c.snapshot_id == snapshot_id
    # The second condition follows from the first; it is what the index of busy volumes is made for.
    busy = made.c.status.not_in([literal_column("'available'"), literal_column("'in-use'")])
    unfinished = made.c.status.in_(("creating", "downloading"))
    smaller = () if below is None else (made.c.size < below,)
    return select(made.c.id).where(origin, unfinished, busy, ~made.c.deleted, *smaller)


def in_pools(conn: Connection, host_id: str) -> dict[str, int]:
    """As `in_pool`, for all pools of a host that hold anything."""
    held = func.coalesce(volumes.c.device_bytes, volumes.c.size * GIB)
    there = (volumes.c.host_id == host_id, volumes.c.pool_id.is_not(None), ~volumes.c.deleted)
    query = select(volumes.c.pool_id, func.sum(held)).where(*there).group_by(volumes.c.pool_id)
    return {pool_id: int(total) for pool_id, total in conn.execute(query)}


def in_pool(conn: Connection, pool_id: str, cluster: str | None = None) -> int:
    held = func.coalesce(volumes.c.device_bytes, volumes.c.size * GIB)
    if cluster is not None:
        shared = (volumes.c.cluster_name == cluster, volumes.c.pool == pool_id.partition("#")[2], ~volumes.c.deleted)
        return int(conn.execute(select(func.coalesce(func.sum(held), 0)).where(*shared)).scalar_one())
    there = (volumes.c.host_id == pool_id.partition("@")[0], volumes.c.pool_id == pool_id, ~volumes.c.deleted)
    own = conn.execute(select(func.coalesce(func.sum(held), 0)).where(*there))
    return int(own.scalar_one())
