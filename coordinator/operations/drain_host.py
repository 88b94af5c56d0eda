"""Emptying a host for maintenance: what is still at work there, what waits until it is back, and what depends on it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from sqlalchemy import Connection

from coordinator.operations import dependents, draining
from coordinator.state import clusters, fleet
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow

_SETTLED_S = 3.0
_MEANS = {
    dependents.VOLUMES: "stay on it: volumes of a host of its own are not moved to another one yet. They can be used "
    "again when it is back; to be rid of the host, back up or upload what is wanted, and delete them",
    dependents.SNAPSHOTS: "stay on it, with their volumes",
    dependents.IMAGES: "stay on it: nothing can be made of them while it is away",
    dependents.KEPT_BY_IT: "their devices are lost when it is switched off: stop what uses them, and detach them",
    dependents.ELSEWHERE: "their devices wait or fail while it is away: stop what uses them, and detach them",
    dependents.KEPT_BY_OTHERS: "of servers there: move the servers to another host",
}


@dataclass(frozen=True, slots=True)
class Left:
    """Things of one kind that depend on the host, and what that means for them."""

    what: str
    means: str
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Draining:
    """`working` has begun on the host and has not ended; `waiting` begins when it is enabled again.

    `is_quiet`: it is drained, and nothing is at work there.
    """

    drained_at: datetime.datetime | None
    reason: str | None
    is_quiet: bool
    working: list[Operation]
    waiting: list[Operation]
    left: list[Left]


def drain(conn: Connection, host_id: str, reason: str | None) -> None:
    """Begin and place nothing there from now on; other members of its clusters serve what is idle. Raises NotFound."""
    fleet.drain(conn, host_id, reason)
    clusters.spread_idle(conn)


def look(conn: Connection, host_id: str) -> Draining:
    """How far it is; raises NotFound."""
    row = fleet.get(conn, host_id)
    working, said = dependents.working(conn, host_id), draining.reason(host_id, "")
    waiting = [each for each in dependents.active(conn) if (each.waiting or "").startswith(said)]
    found = dependents.of_host(conn, host_id)
    # A transaction that began before may still name a job for it.
    settled = row.drained_at is not None and (utcnow() - row.drained_at).total_seconds() > _SETTLED_S
    return Draining(
        drained_at=row.drained_at,
        reason=row.disabled_reason,
        is_quiet=settled and not working,
        working=working,
        waiting=waiting,
        left=[Left(what, means, found[what]) for what, means in _MEANS.items() if found[what]],
    )
