"""Snapshots: create, list, show, change, delete, correct the status."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, WithJsonSchema
from sqlalchemy import Connection, Row

from agent.base.errors import NotFound
from coordinator.api.acting import changed, owned_snapshot, owned_volume, requester
from coordinator.api.call import Call
from coordinator.api.conditions import FEW, MANY, NO_INDEX, exact, ids, like, number, pairs, time, truth
from coordinator.api.errors import BadRequest
from coordinator.api.fields import TRUE, Answer, Body, Boolean, Key, Metadata, Name, OpenAnswer, Since, Text, Time, Uuid
from coordinator.api.lists import Filter, Listing, ask
from coordinator.api.openapi_at import UP_TO, named
from coordinator.api.route import Resource, action, delete, get, post, put
from coordinator.api.v3.volume_view import Link
from coordinator.keys.store import KeyStore
from coordinator.operations.create_snapshot import NewSnapshot, accept_snapshot
from coordinator.operations.delete_snapshot import accept_snapshot_delete
from coordinator.operations.engine import Engine
from coordinator.operations.reset_status import reset_snapshot
from coordinator.state import metadata, snapshot_lists, snapshots
from coordinator.state.operations import Operation
from coordinator.state.tables.snapshots import snapshot_metadata
from coordinator.state.tables.snapshots import snapshots as table

_FORCE_IMPLIED = 66
_TRUE_WORDS = {spelled for word in TRUE for spelled in (word, word.upper(), word.capitalize())}
_FORCE = {
    "anyOf": [
        {"type": ["boolean", "string", "integer"], UP_TO: named(_FORCE_IMPLIED - 1)},
        {"enum": [True, 1, *sorted(_TRUE_WORDS)]},
        {"type": "null"},
    ]
}
_EXACT = {"status": MANY, "volume_id": FEW, "user_id": NO_INDEX, "name": FEW}
_SORTED = ("id", "status", "volume_id", "name", "created_at", "updated_at", "description", "volume_size", "user_id",
           "project_id")  # fmt: skip
SNAPSHOTS = Listing(
    "snapshot",
    {
        **{name: exact(table.c[name], narrows=narrows) for name, narrows in _EXACT.items()},
        "display_name": exact(table.c.name, narrows=FEW),
        "name~": like(table.c.name),
        "id": ids(table.c.id),
        "volume_size": number(table.c.volume_size),
        "consumes_quota": truth("consumes_quota", table.c.use_quota, 65),
        "created_at": time("created_at", table.c.created_at, 60),
        "updated_at": time("updated_at", table.c.updated_at, 60),
        "metadata": pairs("metadata", snapshot_metadata, "snapshot_id", table.c.id, 22),
        "availability_zone": Filter(lambda zone: table.c.volume_id.in_(snapshot_lists.volumes_in_zone(zone))),
    },
    {name: name for name in _SORTED}
    | {"display_name": "name", "display_description": "description", "size": "volume_size"},
    "snapshots_links",
    counted=True,
    early=("status", "volume_id", "name", "metadata"),
    sort_since={"name": 30},
)


class CreateSnapshot(Body):
    unknown_refused_from: ClassVar[int] = 53
    volume_id: Uuid | None
    name: Name | None = None
    display_name: Name | None = None
    description: Text | None = None
    display_description: Text | None = None
    force: Annotated[Boolean | None, WithJsonSchema(_FORCE)] = None
    metadata: Metadata | None = None


class UpdateSnapshot(Body):
    unknown_refused_from: ClassVar[int] = 53
    name: Name | None = None
    display_name: Name | None = None
    description: Text | None = None
    display_description: Text | None = None


class ResetSnapshot(Body):
    status: Key


class SnapshotAnswer(OpenAnswer):
    """`os-extended-snapshot-attributes:*` come with show and detail."""

    id: str
    name: str | None
    description: str | None
    volume_id: str
    status: str
    size: int
    created_at: Time
    updated_at: Time | None
    metadata: dict[str, str]
    group_snapshot_id: Annotated[str | None, Since(14)] = None
    user_id: Annotated[str | None, Since(41)] = None
    consumes_quota: Annotated[bool, Since(65)] = True


class SnapshotList(Answer):
    snapshots: list[SnapshotAnswer]
    snapshots_links: list[Link] = Field(default_factory=list)
    count: Annotated[int, Since(45)] = 0


def view(call: Call, row: Row[Any], pairs: dict[str, str], *, extended: bool = True) -> dict[str, Any]:
    """A snapshot as an answer; `extended` adds project and progress where policy shows them."""
    found: dict[str, Any] = {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "volume_id": row.volume_id,
        "status": row.status,
        "size": row.volume_size,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "metadata": dict(pairs),
        "group_snapshot_id": None,
        "user_id": row.user_id,
        "consumes_quota": row.use_quota,
    }
    target = {"project_id": row.project_id, "user_id": row.user_id}
    if extended and call.may("volume_extension:extended_snapshot_attributes", target):
        found["os-extended-snapshot-attributes:project_id"] = row.project_id
        found["os-extended-snapshot-attributes:progress"] = "100%" if row.status == "available" else "0%"
    return found


async def create(call: Call) -> dict[str, Any]:
    body = call.valid(CreateSnapshot)
    force = bool(body.force)
    if call.version >= _FORCE_IMPLIED:
        if body.force is False:
            raise BadRequest(reason="Invalid value for 'force': since microversion 3.66 a volume in use can always be "
                             "snapshotted, and false is not accepted.")  # fmt: skip
        force = True
    keys = call.services.get(KeyStore)

    def accept(conn: Connection) -> tuple[Operation, Row[Any]]:
        if body.volume_id is None:
            raise NotFound(noun="Volume", id="None")  # as Cinder has it
        volume = owned_volume(conn, call, body.volume_id, "volume:create_snapshot")
        wanted = NewSnapshot(
            volume.id,
            name=body.name if body.name is not None else body.display_name,
            description=body.description if body.description is not None else body.display_description,
            metadata=body.metadata or {},
            force=force,
        )
        return accept_snapshot(conn, requester(call, volume.project_id), keys, wanted)

    _, row = await call.services.get(Engine).submit(accept)
    return view(call, row, body.metadata or {}, extended=False)


async def listed(call: Call) -> dict[str, Any]:
    return await _list(call, extended=False)


async def listed_in_detail(call: Call) -> dict[str, Any]:
    return await _list(call, extended=True)


async def _list(call: Call, *, extended: bool) -> dict[str, Any]:
    asked = ask(call, SNAPSHOTS)
    mine, where = asked.project, asked.where

    def read(conn: Connection) -> tuple[list[dict[str, Any]], int]:
        rows = snapshot_lists.snapshot_page(conn, mine, where, asked.page) if asked.page.limit else []
        found = snapshot_lists.snapshot_metadata_of(conn, rows)
        views = [view(call, row, found[row.id], extended=extended) for row in rows]
        return views, snapshot_lists.snapshot_count(conn, mine, where) if asked.counting else 0

    return asked.answer(call, "snapshots", *await call.services.db.read(read))


async def show(call: Call) -> dict[str, Any]:
    def read(conn: Connection) -> dict[str, Any]:
        row = owned_snapshot(conn, call, call.params["snapshot_id"], "volume:get_snapshot")
        return view(call, row, metadata.read(conn, "snapshot", row.id))

    return await call.services.db.read(read)


async def update(call: Call) -> dict[str, Any]:
    body = call.valid(UpdateSnapshot)
    given = body.model_fields_set
    if not given and call.version >= 53:
        raise BadRequest(reason="Invalid input for field/attribute snapshot. Value: {}. At least one key is needed.")
    values: dict[str, Any] = {}
    for name in ("name", "description"):
        for alias in (f"display_{name}", name):
            if alias in given:
                values[name] = getattr(body, alias)

    def change(conn: Connection) -> dict[str, Any]:
        row = owned_snapshot(conn, call, call.params["snapshot_id"], "volume:update_snapshot")
        if values:
            snapshots.set_values(conn, row.id, **values)
        changed(conn, call, "snapshot", row, "update_snapshot.end")
        return view(call, snapshots.get(conn, row.id), metadata.read(conn, "snapshot", row.id), extended=False)

    return await call.services.db.write(change)


async def remove(call: Call) -> None:
    def accept(conn: Connection) -> tuple[Operation, None]:
        row = owned_snapshot(conn, call, call.params["snapshot_id"], "volume:delete_snapshot")
        return accept_snapshot_delete(conn, requester(call, row.project_id), row.id), None

    await call.services.get(Engine).submit(accept)


async def reset(call: Call) -> None:
    wanted = call.valid(ResetSnapshot).status.lower()
    rule = "volume_extension:snapshot_admin_actions:reset_status"

    def change(conn: Connection) -> None:
        row = owned_snapshot(conn, call, call.params["snapshot_id"], rule)
        if row.status != wanted:
            reset_snapshot(conn, row.id, wanted)

    await call.services.db.write(change)


def resource() -> Resource:
    """The routes."""
    return Resource(
        "snapshots",
        "Snapshots of volumes.",
        (
            post("/snapshots", create, "volume:create_snapshot", "Take a snapshot; of a volume in use with force, or "
                 "from 3.66 on.", body=CreateSnapshot, body_key="snapshot", answer=SnapshotAnswer,
                 answer_key="snapshot", status=202),
            get("/snapshots", listed, "volume:get_all_snapshots", "List snapshots.", answer=SnapshotList,
                **SNAPSHOTS.described),
            get("/snapshots/detail", listed_in_detail, "volume:get_all_snapshots", "List snapshots in detail.",
                answer=SnapshotList, **SNAPSHOTS.described),
            get("/snapshots/{snapshot_id}", show, "volume:get_snapshot", "Show a snapshot.", answer=SnapshotAnswer,
                answer_key="snapshot"),
            put("/snapshots/{snapshot_id}", update, "volume:update_snapshot", "Change name or description.",
                body=UpdateSnapshot, body_key="snapshot", answer=SnapshotAnswer, answer_key="snapshot"),
            delete("/snapshots/{snapshot_id}", remove, "volume:delete_snapshot", "Delete a snapshot."),
            action("/snapshots/{snapshot_id}/action", "os-reset_status", reset,
                   "volume_extension:snapshot_admin_actions:reset_status", "Correct a snapshot's status.",
                   body=ResetSnapshot),
        ),
    )  # fmt: skip
