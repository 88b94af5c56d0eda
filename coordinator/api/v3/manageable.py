"""What lies on back ends without being managed: listed, and adopted by name; volumes and snapshots alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, select

from agent.base.ids import is_id
from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.paging import page
from coordinator.operations import sizes
from coordinator.operations.engine import Engine
from coordinator.operations.foreign import Foreign, foreign
from coordinator.state import clusters, fleet
from coordinator.state.tables.fleet import pools
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volumes

Kind = Literal["volume", "snapshot"]
QUERY = ("host", "cluster", "limit", "marker", "offset", "sort")
_SORT_KEYS = {"size": "size", "reference": "reference"}
_MANAGED = "already managed"
CLUSTER_SINCE = 17


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing, known or not. `source` is what a snapshot is a snapshot of."""

    name: str
    size_bytes: int
    reason: str = ""
    known_id: str | None = None
    source: Mapping[str, str] | None = None

    @property
    def size(self) -> int:
        return sizes.gib_for(self.size_bytes)


def place_of(conn: Connection, host: str | None, cluster: str | None) -> Row[Any]:
    """The pool that `host` names, or one that serves `cluster` (`NAME@BACKEND#POOL`) now; raises BadRequest."""
    if bool(host) == bool(cluster):
        raise BadRequest(reason="One and only one of cluster and host must be set.")
    if host:
        return pool_of(conn, host)
    name, _, pool = str(cluster).partition("#")
    serving = clusters.members(conn, name, pool or name.partition("@")[2])
    if not serving:
        raise BadRequest(reason=f"Unable to find service: cinder-volume for the given cluster: {name[:128]}.")
    return conn.execute(select(pools).where(pools.c.id == serving[0].id)).one()


def pool_of(conn: Connection, host: str) -> Row[Any]:
    """The pool `host@backend#pool` (or the only one of `host@backend`); raises BadRequest."""
    back_end = host.partition("#")[0]
    name, _, backend = back_end.partition("@")
    found = conn.execute(select(pools).where(pools.c.host_id == name, pools.c.present).order_by(pools.c.id)).all()
    chosen = [row for row in found if row.id == host or ("#" not in host and row.backend == backend)]
    if len(chosen) != 1:
        known = ", ".join(row.id for row in found) or "none"
        raise BadRequest(
            reason=f"Unable to find service: cinder-volume for the given host: {host[:128]} (pools there: {known})."
        )
    return chosen[0]


async def chosen(call: Call, host_id: str, place: str, reference: Any, kind: Kind) -> Foreign:
    """What a `ref` names; raises BadRequest for a form that is not understood, and for what is not there."""
    name = reference.get("source-name") if isinstance(reference, dict) else reference
    if not isinstance(name, str) or not 0 < len(name) <= 255:
        raise BadRequest(reason="Reference must contain source-name element.")
    for item in await foreign(call.services.get(Engine), host_id, place):
        if item.name == name:
            return item
    raise BadRequest(
        reason=f"Manage existing {kind} failed due to invalid backend reference {name[:128]}: there is no such thing "
        f"to manage on {host_id}@{place}."
    )


def key_of(reference: Any) -> str | None:
    """The secret that a `ref` names; raises BadRequest for what is no id."""
    key_id = reference.get("encryption-key-id") if isinstance(reference, dict) else None
    if key_id is not None and not (isinstance(key_id, str) and is_id(key_id)):
        raise BadRequest(reason="The encryption-key-id of a reference must be the id of a secret.")
    return key_id


async def listing(call: Call, kind: Kind, *, with_details: bool) -> list[dict[str, Any]]:
    """One page of everything on the pool that `host` names."""
    host, cluster = call.query.get("host"), call.query.get("cluster") if call.version >= CLUSTER_SINCE else None
    if host is None and call.version < CLUSTER_SINCE:
        raise BadRequest(reason="Host field is missing.")
    pool = await call.services.db.read(lambda conn: place_of(conn, host, cluster))
    found = await foreign(call.services.get(Engine), pool.host_id, fleet.address(pool))
    known = await call.services.db.read(lambda conn: (_volumes if kind == "volume" else _snapshots)(conn, pool.id))
    entries = [*known, *(_entry(item) for item in found if kind == "volume" or item.kind == "snapshot")]
    return [_view(item, kind, with_details=with_details) for item in _paged(call, entries)]


def _entry(item: Foreign) -> Entry:
    source = {"source-name": item.source} if item.source else None
    return Entry(item.name, item.size_bytes, item.reason, None, source)


def _volumes(conn: Connection, pool_id: str) -> list[Entry]:
    rows = conn.execute(select(volumes).where(volumes.c.pool_id == pool_id, ~volumes.c.deleted))
    return [Entry(f"volume-{row.id}", _bytes(row.device_bytes, row.size), _MANAGED, row.id) for row in rows]


def _snapshots(conn: Connection, pool_id: str) -> list[Entry]:
    query = select(snapshots).join(volumes, volumes.c.id == snapshots.c.volume_id)
    rows = conn.execute(query.where(volumes.c.pool_id == pool_id, ~snapshots.c.deleted))
    return [
        Entry(f"snapshot-{row.id}", _bytes(row.device_bytes, row.volume_size), _MANAGED, row.id,
              {"source-id": row.volume_id})
        for row in rows
    ]  # fmt: skip


def _bytes(device_bytes: int | None, size: int) -> int:
    return int(device_bytes) if device_bytes else sizes.usable_bytes(size)


def _paged(call: Call, entries: list[Entry]) -> Sequence[Entry]:
    """Sorted by `sort` (default: reference), behind `marker` (the JSON of a reference), after `offset`."""
    asked = page(call, _SORT_KEYS)
    sorts = [(column, descending) for column, descending in asked.sorts if column in _SORT_KEYS]
    for column, descending in reversed(sorts or [("reference", False)]):
        key: Callable[[Entry], Any] = (lambda item: item.size) if column == "size" else (lambda item: item.name)
        entries = sorted(entries, key=key, reverse=descending)
    start = asked.offset
    if asked.marker is not None:
        names = [item.name for item in entries]
        name = _marker(asked.marker)
        if name not in names:
            raise BadRequest(reason=f"marker not found: {asked.marker[:128]}")
        start += names.index(name) + 1
    return entries[start : start + asked.limit]


def _marker(given: str) -> str:
    try:
        found = json.loads(given.replace("'", '"'))
    except ValueError:
        return given
    return str(found.get("source-name", "")) if isinstance(found, dict) else given


def _view(item: Entry, kind: Kind, *, with_details: bool) -> dict[str, Any]:
    view: dict[str, Any] = {
        "reference": {"source-name": item.name}, "size": item.size, "safe_to_manage": not item.reason,
    }  # fmt: skip
    if kind == "snapshot":
        view["source_reference"] = dict(item.source or {})
    if with_details:
        view |= {"reason_not_safe": item.reason or None, "cinder_id": item.known_id, "extra_info": None}
    return view
