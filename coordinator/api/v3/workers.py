"""`workers/cleanup`: see at once to what dead services have left, instead of when it is noticed by itself.

Unfinished work is an operation, which goes on by itself; nothing is lost without this call. It makes the hosts be asked
at once, and lets the members of a cluster take over what the dead one had.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection, Row

from agent.base.errors import Invalid
from agent.base.release import RELEASE
from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Answer, Body, Boolean, Integer, RequiredName, Uuid
from coordinator.api.route import Resource, post, put
from coordinator.api.v3.clusters import BINARY
from coordinator.operations.engine import Engine
from coordinator.state import clusters, coordinators, operations, services, snapshots, volumes

_TYPES = {"volume", "snapshot"}


class SeveralReleases(Invalid):
    """One of them may know work, or a rule of who takes over, that the other does not."""

    code = "workers.several-releases"
    sentence = "Coordinators of several releases are at work ({releases}); nothing is cleaned up during an upgrade."
    hint = "Replace the others first; one that was killed counts as gone after 10 seconds. Work goes on by itself."


class CleanupBody(Body):
    """Which services, and of them which resource; nothing: all."""

    service_id: Annotated[Integer, Field(ge=1, le=2**31 - 1)] | None = None
    cluster_name: RequiredName | None = None
    host: RequiredName | None = None
    binary: RequiredName | None = None
    is_up: Boolean | None = None
    disabled: Boolean | None = None
    resource_type: RequiredName | None = None
    resource_id: Uuid | None = None


class WorkerAnswer(Answer):
    """`id` stands for the name of the service."""

    id: int
    host: str
    binary: str
    cluster_name: str | None


class CleanupAnswer(Answer):
    """`cleaning`: seen to now; `unavailable`: down, with nobody who could in its place."""

    cleaning: list[WorkerAnswer]
    unavailable: list[WorkerAnswer]


def number(name: str) -> int:
    """A service's id: its name as a positive number."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % (2**31 - 1) + 1


async def cleanup(call: Call) -> dict[str, Any]:
    wanted = call.valid(CleanupBody)
    kind = wanted.resource_type.lower() if wanted.resource_type is not None else None
    if kind is not None and kind not in _TYPES:
        raise BadRequest(reason=f"Resource type {wanted.resource_type} not valid, must be Volume or Snapshot")

    def read(conn: Connection) -> tuple[list[Row[Any]], set[str]]:
        _of_one_release(conn)
        host = _at_work(conn, wanted.resource_id) if wanted.resource_id is not None else None
        rows = [row for row in services.backends(conn) if host in {None, row.host_id} and _fits(row, wanted)]
        return rows, {one.name for one in clusters.listing(conn) if one.is_up}

    rows, living = await call.services.db.read(read)
    cleaning = [row for row in rows if row.reachable or row.cluster_name in living]
    agents = call.services.get(Engine).agents
    for row in cleaning:
        agents.look(row.host_id)
    await call.services.db.write(clusters.spread_idle)
    unavailable = [row for row in rows if row not in cleaning]
    return {"cleaning": [_view(row) for row in cleaning], "unavailable": [_view(row) for row in unavailable]}


def _of_one_release(conn: Connection) -> None:
    found = coordinators.releases(conn) | {RELEASE}
    if len(found) > 1:
        raise SeveralReleases(releases=", ".join(sorted(found)))


def _at_work(conn: Connection, resource_id: str) -> str | None:
    """The host of the resource's volume; BadRequest when nothing is at work on it."""
    if operations.active_of(conn, resource_id) is None:
        raise BadRequest(reason=f"Resource {resource_id} has no pending work.")
    snapshot = snapshots.find(conn, resource_id)
    row = volumes.with_any_state(conn, snapshot.volume_id if snapshot is not None else resource_id)
    return None if row is None else row.host_id


def _fits(row: Row[Any], wanted: CleanupBody) -> bool:
    name, enabled = _name(row), bool(row.enabled) and not row.disabled
    return (
        wanted.host in {None, name, row.host_id}
        and wanted.cluster_name in {None, row.cluster_name}
        and wanted.binary in {None, BINARY}
        and wanted.service_id in {None, number(name)}
        and wanted.is_up in {None, bool(row.reachable)}
        and wanted.disabled in {None, not enabled}
    )


def _name(row: Row[Any]) -> str:
    return f"{row.host_id}@{row.backend}" if row.backend else str(row.host_id)


def _view(row: Row[Any]) -> dict[str, Any]:
    name = _name(row)
    return {"id": number(name), "host": name, "binary": BINARY, "cluster_name": row.cluster_name}


def resource() -> Resource:
    """The routes."""
    return Resource(
        "workers",
        "Work that dead services have left.",
        (
            post("/workers/cleanup", cleanup, "workers:cleanup", "See at once to what dead services have left.",
                 since=24, status=202, body=CleanupBody, answer=CleanupAnswer),
            # The way of openstacksdk.
            put("/workers/cleanup", cleanup, "workers:cleanup", "The same.", since=24, status=202, body=CleanupBody,
                answer=CleanupAnswer),
        ),
    )  # fmt: skip
