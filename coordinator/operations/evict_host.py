"""Giving up a host that does not come back: what that means is shown first, and done in one transaction.

The word that the host is dead (a fence's proof, or the operator's own) is written down. From then on nobody talks to
the host: its certificates are refused, and work that waited for it ends by itself (`JobStep.gone_is_done`, else it
fails and is undone without it). Rows of what lies there stay, marked, until somebody deletes them or the host is
enrolled again; no data are touched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from sqlalchemy import Connection, and_, or_, select

from agent.base.errors import Conflict, NotFound
from coordinator.operations import dependents
from coordinator.operations.accept import Requester
from coordinator.operations.attach_host import accept_detach
from coordinator.state import clusters, enrolment, evictions, fleet, issues, volumes
from coordinator.state.errors import TransitionRefused
from coordinator.state.issues import Issue
from coordinator.state.locks import hold_name
from coordinator.state.operations import Operation
from coordinator.state.savepoint import savepoint
from coordinator.state.tables.attachments import attachments
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volumes as volume_table
from coordinator.state.transition import move_if

CODE = "host.evicted"
Proof = Literal["fence", "operator"]
_NAMED = 20
_OPERATIONS = "operations"
_FATES = {
    dependents.VOLUMES: "out of reach: each becomes error, unless it is in use elsewhere; deleting one drops its row",
    dependents.SNAPSHOTS: "out of reach, with their volumes",
    dependents.IMAGES: "out of reach: nothing can be made of them",
    dependents.KEPT_BY_IT: "ended; volumes of other hosts can be attached elsewhere",
    dependents.ELSEWHERE: "their devices fail; they stay until they are detached",
    dependents.KEPT_BY_OTHERS: "stay: who made them ends them (for a server: evacuate it)",
    _OPERATIONS: "end: what waits for it fails, or is done where it only had to be gone there",
}


class EvidenceNeeded(Conflict):
    code = "host.evidence-needed"
    sentence = "Host {host} may still run and write: nobody has said that it is dead, and {count} things depend on it."
    hint = (
        "Switch it off, then say so: --fenced with what your fence answered, or --operator-says with your own word. "
        "See what it means with: brickyard host evict {host} --dry-run."
    )


class HostAnswers(Conflict):
    code = "host.answers"
    sentence = "Host {host} answers, so it is not dead, and {count} things depend on it."
    hint = "Move or delete what is on it; or stop its agent and switch it off, then say so."


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why the host can not write any more, in words that are kept."""

    proof: Proof
    words: str


@dataclass(frozen=True, slots=True)
class Part:
    """Things of one kind that depend on the host, and what becomes of them."""

    what: str
    fate: str
    ids: tuple[str, ...]


def look(conn: Connection, host_id: str) -> list[Part]:
    """All that depends on the host; raises NotFound for one that is not, and was not, enrolled."""
    if enrolment.host(conn, host_id) is None and evictions.of_host(conn, host_id) is None:
        raise NotFound(noun="Host", id=host_id)
    ids = dependents.of_host(conn, host_id)
    ids[_OPERATIONS] = tuple(sorted(found.id for found in dependents.working(conn, host_id)))
    return [Part(what, fate, ids[what]) for what, fate in _FATES.items() if ids[what]]


def evict(
    conn: Connection, requester: Requester, host_id: str, evidence: Evidence | None, *, answers: bool
) -> tuple[list[Part], list[Operation]]:
    """Give the host up; returns what depended on it, and the operations that end its attachments.

    Once more for the same host ends what could not be ended then. Raises NotFound, HostAnswers, EvidenceNeeded.
    """
    hold_name(conn, f"host {host_id}")
    found = look(conn, host_id)
    if enrolment.host(conn, host_id) is not None:
        count = sum(len(part.ids) for part in found)
        if count and answers:
            raise HostAnswers(host=host_id, count=count)
        if count and evidence is None:
            raise EvidenceNeeded(host=host_id, count=count)
        enrolment.evict_host(conn, host_id)
        fleet.forget(conn, host_id)
        issues.settle_host(conn, host_id)
        evictions.add(
            conn, host_id, user_id=requester.user_id, request_id=requester.request_id,
            evidence=evidence.proof if evidence is not None else None,
            words=evidence.words if evidence is not None else None,
            counts={part.what: len(part.ids) for part in found},
        )  # fmt: skip
    clusters.spread_idle(conn)
    mark(conn, host_id)
    begun = _detached(conn, requester, host_id)
    _tell(conn, host_id, look(conn, host_id))
    return found, begun


def mark(conn: Connection, host_id: str) -> None:
    """What lies on an evicted host is not available, however it came to be so."""
    why = f"Host {host_id}, which it lies on, was evicted."
    there = (volume_table.c.host_id == host_id, ~volume_table.c.deleted)
    status = volume_table.c.status
    cluster = volume_table.c.cluster_name
    served_by_others = cluster.is_not(None) & cluster.in_(clusters.served(conn, but=host_id))
    unmarked = or_(status == "available", and_(status == "in-use", volume_table.c.attention.is_(None)))
    for row in conn.execute(select(volume_table.c.id, status).where(*there, unmarked, ~served_by_others)).all():
        if row.status == "available":
            move_if(conn, "volume", row.id, "damaged", attention=why)
        else:
            volumes.set_values(conn, row.id, attention=why)
    of_them = snapshots.c.volume_id.in_(select(volume_table.c.id).where(*there, ~served_by_others))
    query = select(snapshots.c.id).where(of_them, snapshots.c.status == "available", ~snapshots.c.deleted)
    for snapshot_id in conn.execute(query).scalars().all():
        move_if(conn, "snapshot", snapshot_id, "damaged", attention=why)


def follow(conn: Connection) -> None:
    """Keep what lies on evicted hosts marked, and the issue of each open as long as anything depends on it."""
    for row in evictions.standing(conn):
        mark(conn, row.host_id)
        _tell(conn, row.host_id, look(conn, row.host_id))
    gone = {(CODE, row.host_id) for row in evictions.standing(conn)}
    issues.settle(conn, None, [CODE], gone)


def _detached(conn: Connection, requester: Requester, host_id: str) -> list[Operation]:
    query = select(attachments).where(
        attachments.c.host_id == host_id, attachments.c.owner == "agent", ~attachments.c.deleted
    )
    begun = []
    for row in conn.execute(query).all():
        try:
            with savepoint(conn, "one_detach"):
                begun.append(accept_detach(conn, replace(requester, project_id=row.project_id), row.id))
        except (NotFound, TransitionRefused):
            continue  # it has ended, or work on it is going on, which ends by itself; the issue names what is left
    return begun


def _tell(conn: Connection, host_id: str, left: list[Part]) -> None:
    row = evictions.of_host(conn, host_id)
    if row is None or not left:
        issues.close(conn, CODE, host_id)
        return
    counts = ", ".join(f"{len(part.ids)} {part.what}" for part in left)
    issue = Issue(
        code=CODE,
        resource_type="host",
        resource_id=host_id,
        host_id=host_id,
        sentence=f"Host {host_id} was evicted at {row.at:%Y-%m-%d %H:%M} UTC; of it are left: {counts}.",
        remedy="Enrol it again under its name to have its data back, or delete what lies on it. What is left is named "
        f"by: brickyard host evict {host_id} --dry-run",
        details={part.what: list(part.ids[:_NAMED]) for part in left},
    )
    issues.raise_issue(conn, issue)
