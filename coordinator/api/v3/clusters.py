"""Clusters: back ends that several hosts serve. List, show, let them take new volumes or not."""

from __future__ import annotations

from typing import Annotated, Any

from agent.base.errors import NotFound
from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Answer, Body, RequiredName, Since, Time
from coordinator.api.paging import flag
from coordinator.api.route import Resource, get, put
from coordinator.state import clusters
from coordinator.state.clusters import Cluster

BINARY = "cinder-volume"
_FILTERS = ("name", "binary", "is_up", "disabled", "num_hosts", "num_down_hosts")
_OF_REPLICATION = {"replication_status": "disabled", "active_backend_id": None}
_SINCE_26 = ("frozen", *_OF_REPLICATION)


class ClusterChange(Body):
    """`disabled_reason` goes with disable alone."""

    name: RequiredName | None = None
    binary: RequiredName | None = None
    disabled_reason: RequiredName | None = None


class ClusterSummary(Answer):
    name: str
    binary: str
    state: str
    status: str


class ChangedCluster(ClusterSummary):
    disabled_reason: str | None


class ClusterAnswer(ClusterSummary):
    disabled_reason: str | None
    num_hosts: int
    num_down_hosts: int
    last_heartbeat: Time | None
    created_at: Time
    updated_at: Time | None
    replication_status: Annotated[str | None, Since(26)] = None
    frozen: Annotated[bool | None, Since(26)] = None
    active_backend_id: Annotated[str | None, Since(26)] = None


class ClusterList(Answer):
    clusters: list[ClusterSummary]


class DetailedClusters(Answer):
    clusters: list[ClusterAnswer]


def _summary(one: Cluster) -> dict[str, Any]:
    return {
        "name": one.name,
        "binary": BINARY,
        "state": "up" if one.is_up else "down",
        "status": "disabled" if one.disabled else "enabled",
    }


def _detailed(call: Call, one: Cluster) -> dict[str, Any]:
    made = {
        **_summary(one),
        "disabled_reason": one.disabled_reason,
        "num_hosts": one.members,
        "num_down_hosts": one.down,
        "last_heartbeat": one.last_seen,
        "created_at": one.created_at,
        "updated_at": one.updated_at,
    }
    return made | _OF_REPLICATION | {"frozen": one.frozen} if call.version >= 26 else made


async def _found(call: Call) -> list[Cluster]:
    allowed = {*_FILTERS, *(_SINCE_26 if call.version >= 26 else ())}
    unknown = sorted(call.query.keys() - allowed)
    if unknown:
        raise BadRequest(reason=f"Invalid filter keys: {', '.join(unknown)[:200]}")
    every = await call.services.db.read(clusters.listing)
    return [one for one in every if _matches(call, one)]


def _matches(call: Call, one: Cluster) -> bool:
    wanted = call.query
    tests = [
        ("name" not in wanted or wanted["name"] == one.name),
        ("binary" not in wanted or wanted["binary"] == BINARY),
        ("is_up" not in wanted or flag(call, "is_up") == one.is_up),
        ("disabled" not in wanted or flag(call, "disabled") == one.disabled),
        _counts(call, "num_hosts", one.members),
        _counts(call, "num_down_hosts", one.down),
        ("replication_status" not in wanted or wanted["replication_status"] == "disabled"),
        ("frozen" not in wanted or flag(call, "frozen") == one.frozen),
        not wanted.get("active_backend_id"),
    ]
    return all(tests)


def _counts(call: Call, name: str, count: int) -> bool:
    text = call.query.get(name)
    if text is None:
        return True
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadRequest(reason=f"Invalid value '{text[:64]}' for {name}: a whole number is needed.")
    return int(text) == count


async def listed(call: Call) -> dict[str, Any]:
    return {"clusters": [_summary(one) for one in await _found(call)]}


async def detailed(call: Call) -> dict[str, Any]:
    return {"clusters": [_detailed(call, one) for one in await _found(call)]}


async def show(call: Call) -> dict[str, Any]:
    name = call.params["cluster_name"]
    if call.query.get("binary", BINARY) != BINARY:
        raise NotFound(noun="Cluster", id=name[:255])
    return _detailed(call, await call.services.db.read(lambda conn: clusters.get(conn, name)))


async def change(call: Call) -> dict[str, Any]:
    verb, wanted = call.params["action"], call.valid(ClusterChange)
    if verb not in {"enable", "disable"}:
        raise NotFound(noun="Action of a cluster", id=verb[:64])
    name, enabled, reason = wanted.name, verb == "enable", wanted.disabled_reason
    if name is None:
        raise BadRequest(reason="Missing required element 'name' in request body.")
    if enabled and reason is not None:
        raise BadRequest(reason="Unexpected 'disabled_reason' found on enable request.")
    if (wanted.binary or BINARY) != BINARY:
        raise NotFound(noun="Cluster", id=name)
    await call.services.db.write(lambda conn: clusters.set_enabled(conn, name, enabled=enabled, reason=reason))
    one = await call.services.db.read(lambda conn: clusters.get(conn, name))
    return {**_summary(one), "disabled_reason": one.disabled_reason}


def resource() -> Resource:
    """The routes."""
    filters = (*_FILTERS, *_SINCE_26)
    return Resource(
        "clusters",
        "Clusters (back ends that several hosts serve).",
        (
            get("/clusters", listed, "clusters:get_all", "List clusters.", query=filters, since=7,
                answer=ClusterList),
            get("/clusters/detail", detailed, "clusters:get_all", "List clusters with their members counted.",
                query=filters, since=7, answer=DetailedClusters),
            get("/clusters/{cluster_name}", show, "clusters:get", "Show a cluster.", query=("binary",), since=7,
                answer=ClusterAnswer, answer_key="cluster"),
            put("/clusters/{action}", change, "clusters:update",
                "Let a cluster take new volumes or not: enable, disable.", since=7, body=ClusterChange,
                answer=ChangedCluster, answer_key="cluster"),
        ),
    )  # fmt: skip
