"""A new volume that its host could not make is undone there, and made in another pool.

What it knew of the pools that were tried stands in the step `place` (`tried`), so that a takeover knows it, too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from coordinator.operations.volume_calls import volume_row
from coordinator.scheduler.request import space_of
from coordinator.state.operations import Operation

log = get_logger(__name__)

OF_THE_PLACE = frozenset({
    "backend.no-space", "backend.over-subscribed", "backend.pool-full", "lvm.full",
    "backend.no-permission", "backend.failed", "backend.not-mounted", "backend.share-hangs",
    "backend.lvm-report", "backend.lvm-pool", "backend.device-denied",
    "lvm.unavailable", "lvm.failed", "lvm.group-missing", "lvm.group-ambiguous",
    "backend.ceph-hangs", "backend.ceph-denied", "backend.ceph-pool", "backend.ceph-failed", "backend.ceph-no-way-in",
    "backend.ceph-keyring", "backend.luks1-alone",
    "privilege.unavailable", "privilege.timeout", "privilege.stuck", "privilege.daemon-lost",
    "privilege.limits-invalid", "privilege.program-missing", "privilege.show-failed",
})  # fmt: skip
"""Errors that say nothing of the volume: another pool may well take it. All others would be met there, too."""
_BEING_MADE = frozenset({"creating", "downloading"})


def tried(operation: Operation) -> dict[str, str]:
    """Where it was refused, by the name of that space, and in which words."""
    return dict(operation.steps.get("place", {}).get("tried", {}))


def anew(conn: Connection, operation: Operation, error: BrickyardError, attempts: int) -> Operation | None:
    """The operation as it begins again, all of it undone; None where it is to fail."""
    place = operation.steps.get("place", {}).get("result")
    known = tried(operation)
    if place is None or error.code not in OF_THE_PLACE or operation.args.get("pool_id") or operation.cancel_requested:
        return None
    if len(known) + 1 >= attempts or volume_row(conn, operation).status not in _BEING_MADE:
        return None
    space = space_of(place["pool_id"], place.get("cluster_name"), place["pool"])
    log.info("a host refused a new volume", pool=place["pool_id"], code=error.code, reason=str(error))
    steps = {name: _fresh(name, operation) for name in operation.steps}
    steps["place"] = {"state": "again", "tried": {**known, space: str(error)}}
    return replace(operation, steps=steps, step=None, error=None)


def _fresh(name: str, operation: Operation) -> dict[str, Any]:
    """A step as one that was not begun; a job's key must be another one than before.

    Of an undo its host stays known, which is told at the end that it may forget the job.
    """
    attempt = {"attempt": operation.attempt(name) + 1}
    if name.endswith(".undo"):
        return {**{key: value for key, value in operation.steps[name].items() if key == "host"}, **attempt}
    return {"state": "again", **attempt}
