"""`volume repair`: the three truths of a volume side by side, a plan in words, and its safe part done."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError
from coordinator.api.acting import requester, scope
from coordinator.api.brickyard.attachments import HostAttachmentAnswer, shown
from coordinator.api.brickyard.operations import OperationAnswer, view
from coordinator.api.brickyard.pages import picked
from coordinator.api.call import Call
from coordinator.api.fields import Answer, Body, Boolean
from coordinator.api.route import Resource, post
from coordinator.operations import repair_volume
from coordinator.operations.engine import Engine
from coordinator.operations.repair_volume import Action, Plan, Seen
from coordinator.state import volumes
from coordinator.state.operations import Operation
from coordinator.state.volumes import backend_of

_ROW = ("id", "status", "previous_status", "size", "device_bytes", "usable_bytes", "host_id", "backend", "pool_id",
        "attach_status", "attention")  # fmt: skip


class RepairBody(Body):
    """`dry_run` only shows the plan."""

    dry_run: Boolean = True


class RowTruth(Answer):
    id: str
    status: str
    previous_status: str | None
    size: int
    device_bytes: int | None
    usable_bytes: int | None
    host_id: str | None
    backend: str | None
    pool_id: str | None
    attach_status: str
    attention: str | None
    attachments: list[HostAttachmentAnswer]


class HostTruth(Answer):
    """`held` is what the back end has of the volume, `attached` what the host keeps attached."""

    host_id: str | None
    reached: bool
    reason: str
    held: dict[str, Any] | None
    attached: list[dict[str, Any]]


class ActionAnswer(Answer):
    kind: str
    sentence: str
    safe: bool


class RepairAnswer(Answer):
    volume_id: str
    dry_run: bool
    agrees: bool
    row: RowTruth
    host: HostTruth
    plan: list[ActionAnswer]
    done: list[ActionAnswer]
    operation: OperationAnswer | None


async def repair(call: Call) -> dict[str, Any]:
    """Asks the host, compares, plans; without `dry_run` also does what is safe."""
    volume_id, dry_run = call.params["volume_id"], call.valid(RepairBody).dry_run
    row = await call.services.db.read(lambda conn: volumes.get(conn, volume_id, scope(call)))
    seen = await look(call.services.get(Engine), row)
    found = await call.services.db.read(lambda conn: repair_volume.plan(conn, volume_id, seen))
    done: list[Action] = []
    operation: Operation | None = None
    if not dry_run:
        done, operation = await _act(call, found)
    return {
        "volume_id": volume_id,
        "dry_run": dry_run,
        "agrees": not found.differs,
        "row": {**picked(found.row, *_ROW), "attachments": [_attached(item) for item in found.attachments]},
        "host": _host(found.seen),
        "plan": [_action(item) for item in found.actions],
        "done": [_action(item) for item in done],
        "operation": view(call, operation) if operation is not None else None,
    }


async def look(engine: Engine, row: Row[Any]) -> Seen:
    """What the volume's host says of it; an unreachable host is told of, not raised."""
    client = engine.agents.client(row.host_id) if row.host_id is not None else None
    if client is None:
        return Seen(row.host_id, row.updated_at, reason="it is not enrolled" if row.host_id else "")
    try:
        (inventory, away), attached = await client.inventory(), await client.attachments()
    except BrickyardError as error:
        return Seen(row.host_id, row.updated_at, reason=str(error))
    place = backend_of(row)
    if place in away:
        return Seen(row.host_id, row.updated_at, reason=away[place])
    return repair_volume.seen_of(row, inventory, attached)


async def _act(call: Call, found: Plan) -> tuple[list[Action], Operation | None]:
    engine, who = call.services.get(Engine), requester(call, found.row.project_id)

    def act(conn: Connection) -> tuple[list[Action], Operation | None]:
        return repair_volume.act(conn, who, found)

    done, operation = await call.services.db.write(act)
    if operation is not None:
        engine.start(operation)
    return done, operation


def _attached(row: Any) -> dict[str, Any]:
    return {**shown(row), "host_id": row.host_id or row.attached_host or ""}


def _action(action: Action) -> dict[str, Any]:
    return {"kind": action.kind, "sentence": action.sentence, "safe": action.safe}


def _host(seen: Seen) -> dict[str, Any]:
    return {
        "host_id": seen.host_id,
        "reached": seen.reached,
        "reason": seen.reason,
        "held": seen.held.model_dump(mode="json") if seen.held is not None else None,
        "attached": [item.model_dump(mode="json") for item in seen.attached],
    }


def resource() -> Resource:
    """The route."""
    return Resource(
        "repair",
        "Repair of volumes by comparing row, back end and host.",
        (
            post("/{volume_id}/repair", repair, "brickyard:volumes:repair",
                 "Show what differs and the plan; without dry_run, do the safe part.", body=RepairBody,
                 answer=RepairAnswer, answer_key="repair"),
        ),
        prefix="/brickyard/v1/volumes",
    )  # fmt: skip
