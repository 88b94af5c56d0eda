"""extend_volume: claim the difference, grow on the host, then the row says the new size, then servers hear of it.

Where a server has the volume's file locked, the host can not grow it: the server is asked to, and says when it has
(`coordinator.operations.completions`).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError, Invalid
from agent.wire.jobs import AttachmentResize, VolumeExtend
from coordinator.compute.base import Compute
from coordinator.compute.errors import ExtendNeedsCompute, ExtendNotTold
from coordinator.keys.store import KeyStore
from coordinator.operations import completions, fitting, sizes
from coordinator.operations.accept import Requester, accept
from coordinator.operations.completions import Completions
from coordinator.operations.errors import HostDrained
from coordinator.operations.settling import settle
from coordinator.operations.volume_calls import volume_row, volume_secret
from coordinator.operations.workflow import JobCall, JobStep, LocalStep, Result, WaitStep, Workflow
from coordinator.quota import limits
from coordinator.scheduler.claims import release
from coordinator.scheduler.errors import NoPool
from coordinator.scheduler.placement import Scheduler
from coordinator.state import attachments, messages, types, volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import move, move_if
from coordinator.state.volumes import backend_of


def accept_extend(
    conn: Connection, requester: Requester, volume_id: str, new_size: int, *, attached: bool
) -> Operation:
    """`new_size` in GiB; `attached` allows a volume in use (microversion 3.42)."""
    row = volumes.get(conn, volume_id, requester.project_id)
    if new_size <= row.size:
        raise Invalid(
            reason=f"Invalid input received: New size for extend must be greater than current size. "
            f"(current: {row.size}, extended: {new_size})."
        )
    more = new_size - row.size
    type_name = types.get(conn, row.volume_type_id).name if row.volume_type_id else None
    limits.check(conn, row.project_id, type_name, gigabytes=more, volume_size=new_size)
    # What was accepted of the size that it had would be made of the new one.
    guards = (volumes.is_no_source(volume_id=volume_id, below=new_size), volumes.is_not_being_taken(volume_id))
    move(conn, "volume", volume_id, "extend_attached" if attached else "extend", guards=guards, reserved_size=more)
    args = {"new_size": new_size, "old_size": row.size}
    return accept(
        conn, requester, kind="extend_volume", version=3, resource_type="volume", resource_id=volume_id, args=args
    )


_LOCKED = frozenset({"backend.held-by-consumer"})


def _claims(scheduler: Scheduler) -> LocalStep:
    return LocalStep("claim", lambda conn, operation: _claim(conn, scheduler, operation), undo=_unclaim)


def workflow(keys: KeyStore, scheduler: Scheduler, compute: Compute | None, waiting: Completions | None) -> Workflow:
    """Version 3 of the workflow: servers hear of it, or grow the volume themselves."""

    def follow(conn: Connection, operation: Operation) -> JobCall | None:
        return _follow(conn, keys, operation)

    async def ask(operation: Operation) -> None:
        if compute is None:
            raise ExtendNeedsCompute(volume=operation.resource_id, reason="no compute service is configured any more")
        await compute.extend_volume(operation.results["choose"]["server"], operation.resource_id)

    async def completed(operation: Operation) -> Result | None:
        if waiting is None or compute is None or compute.completion_deadline_s is None:
            raise ExtendNeedsCompute(volume=operation.resource_id, reason="no compute service is configured any more")
        return await waiting.wait(operation, operation.results["choose"]["server"], compute.completion_deadline_s)

    async def tell(operation: Operation) -> Result | None:
        if compute is None:
            return None
        return (await compute.volume_extended(operation.results["commit"]["servers"], operation.resource_id)).result()

    def choose(conn: Connection, operation: Operation) -> Result | None:
        return _choose(conn, operation, asks=compute is not None and compute.completion_deadline_s is not None)

    return Workflow(
        kind="extend_volume",
        version=3,
        steps=(
            _claims(scheduler),
            JobStep("grow", _grow, answers=_LOCKED),
            LocalStep("choose", choose, undo=_unchoose),
            WaitStep("ask", ask, needed=_is_locked),
            WaitStep("completed", completed, needed=_is_locked),
            JobStep("confirm", lambda conn, operation: _grow(conn, operation) if _is_locked(operation) else None),
            JobStep("follow", follow, gone_is_done=True),
            LocalStep("commit", _commit),
            WaitStep("tell", tell, needed=lambda operation: bool(operation.results["commit"]["servers"]),
                     cancellable=False),
        ),
        finished=_told,
        failed=_failed,
        attention=_attention,
    )  # fmt: skip


def workflow_v2(keys: KeyStore, scheduler: Scheduler) -> Workflow:
    """Version 2 of the workflow: a host that has the volume attached from elsewhere follows."""

    def follow(conn: Connection, operation: Operation) -> JobCall | None:
        return _follow(conn, keys, operation)

    return Workflow(
        kind="extend_volume",
        version=2,
        steps=(
            _claims(scheduler),
            JobStep("grow", _grow),
            JobStep("follow", follow, gone_is_done=True),
        ),
        finished=_finished,
        failed=_failed,
        attention=_attention,
    )


def workflow_v1(scheduler: Scheduler) -> Workflow:
    """Version 1 of the workflow."""
    return Workflow(
        kind="extend_volume",
        version=1,
        steps=(_claims(scheduler), JobStep("grow", _grow)),
        finished=_finished,
        failed=_failed,
        attention=_attention,
    )


def _more(operation: Operation) -> int:
    return sizes.usable_bytes(operation.args["new_size"] - operation.args["old_size"])


def _claim(conn: Connection, scheduler: Scheduler, operation: Operation) -> dict[str, Any]:
    row = volume_row(conn, operation)
    more, size = _more(operation), operation.args["new_size"]
    if row.pool_id is not None:
        asked = fitting.about(conn, row, "extend_volume", more, type_id=row.volume_type_id, size=size)
        scheduler.claim_there(conn, asked)
    # A poll in the meantime sums up the rows anew: what is claimed must be in the row from now on.
    volumes.set_values(conn, row.id, device_bytes=_held(row) + more)
    return {"claimed": more}


def _unclaim(conn: Connection, operation: Operation) -> None:
    if "commit" in operation.steps:
        return
    row, more = volume_row(conn, operation), _more(operation)
    release(conn, row.pool_id, more)
    volumes.set_values(conn, row.id, device_bytes=_held(row) - more)


def _held(row: Row[Any]) -> int:
    return int(row.device_bytes if row.device_bytes is not None else sizes.usable_bytes(row.size))


def _grow(conn: Connection, operation: Operation) -> JobCall | None:
    row = volume_row(conn, operation)
    args = VolumeExtend(
        backend=backend_of(row),
        volume_id=row.id,
        size_bytes=sizes.usable_bytes(operation.args["new_size"]),
        encrypted=row.encryption_format is not None,
    )
    return JobCall(row.host_id, args)


def _is_locked(operation: Operation) -> bool:
    return "refused" in operation.results["grow"]


def _choose(conn: Connection, operation: Operation, *, asks: bool) -> Result | None:
    """The one server that can grow the volume, where its file is locked; raises ExtendNeedsCompute."""
    if not _is_locked(operation):
        return None
    volume_id = operation.resource_id
    servers = attachments.servers(conn, volume_id, reserved=False)
    if not asks or len(servers) != 1:
        why = f"{len(servers)} servers use it" if asks else "no compute service is configured that would"
        told = operation.results["grow"]["reason"].rstrip(".")
        raise ExtendNeedsCompute(volume=volume_id, reason=f"{told}, and {why}")
    completions.begin(conn, volume_id, operation.args["new_size"])
    return {"server": servers[0]}


def _unchoose(conn: Connection, operation: Operation) -> None:
    completions.end(conn, operation.resource_id)


def _grown(operation: Operation) -> dict[str, Any]:
    """What the host says of the volume now."""
    results = operation.results
    return dict(results["confirm"] if results.get("confirm") is not None else results["grow"])


def _commit(conn: Connection, operation: Operation) -> Result:
    """From here on the volume has its new size, whatever becomes of telling it."""
    completions.end(conn, operation.resource_id)
    _finished(conn, operation)
    told = [] if _is_locked(operation) else attachments.servers(conn, operation.resource_id, reserved=False)
    return {"servers": told}


def _told(conn: Connection, operation: Operation) -> None:
    refused = (operation.results["tell"] or {}).get("refused") or {}
    if refused:
        reason = "; ".join(f"server {server}: {why}" for server, why in refused.items())
        messages.record(conn, operation, ExtendNotTold(reason=reason))


def _follow(conn: Connection, keys: KeyStore, operation: Operation) -> JobCall | None:
    row = volume_row(conn, operation)
    there = [one for one in attachments.of_volume(conn, row.id) if one.owner == "agent" and one.transport is not None]
    if not there:
        return None
    encrypted = row.encryption_format is not None
    size = int(_grown(operation)["device_bytes"])
    job = AttachmentResize(volume_id=row.id, size_bytes=size, encrypted=encrypted)
    return JobCall(there[0].host_id, job, volume_secret(conn, keys, row) if encrypted else {})


def _finished(conn: Connection, operation: Operation) -> None:
    grown, row = _grown(operation), volume_row(conn, operation)
    release(conn, row.pool_id, _held(row) - int(grown["device_bytes"]))
    now = move(
        conn,
        "volume",
        operation.resource_id,
        "extended",
        size=operation.args["new_size"],
        reserved_size=0,
        device_bytes=grown["device_bytes"],
        usable_bytes=grown["usable_bytes"],
    )
    _still_attached(conn, now)


def _still_attached(conn: Connection, now: Row[Any] | None) -> None:
    """It goes back to the status that it had, which its attachments may not call for any more."""
    if now is not None and now.status == "in-use":
        settle(conn, now.id)


def _failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
    event = "extend_refused" if isinstance(error, (NoPool, HostDrained)) else "extend_failed"
    _still_attached(conn, move_if(conn, "volume", operation.resource_id, event, reserved_size=0))
    messages.record(conn, operation, error)


def _attention(conn: Connection, operation: Operation, reason: str) -> None:
    move_if(conn, "volume", operation.resource_id, "extend_failed", reserved_size=0, attention=reason)
