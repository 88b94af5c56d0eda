"""Services: every back end of every host, as operators of Block Storage know them."""

from __future__ import annotations

import socket
from typing import Any

from sqlalchemy import Row

from agent.base.errors import NotFound
from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Body, RequiredName
from coordinator.api.route import Resource, get, put
from coordinator.state import services as state
from coordinator.state.tables.columns import utcnow

_VOLUME, _SCHEDULER = "cinder-volume", "cinder-scheduler"
_CLUSTERS, _BACKEND_STATE = 7, 49
_ENABLE = {"enable": True, "disable": False, "disable-log-reason": False}


class ServiceAction(Body):
    host: RequiredName | None = None
    binary: RequiredName | None = None
    service: RequiredName | None = None
    disabled_reason: RequiredName | None = None


def services() -> Resource:
    """List, enable, disable."""
    return Resource(
        "services",
        "Services (the coordinator, and the back ends of all hosts).",
        (
            get("/os-services", _list, "volume_extension:services:index", "List services.",
                query=("host", "binary", "service")),
            put("/os-services/{action}", _change, "volume_extension:services:update",
                "Let a back end take new volumes or not: enable, disable, disable-log-reason.", body=ServiceAction),
        ),
    )  # fmt: skip


async def _list(call: Call) -> dict[str, Any]:
    rows = await call.services.db.read(state.backends)
    found = [_scheduler(), *(_backend(row, call.version) for row in rows)]
    host, binary = call.query.get("host"), call.query.get("binary", call.query.get("service"))
    if host is not None:
        found = [item for item in found if item["host"] == host or item["host"].startswith(f"{host}@")]
    if binary is not None:
        found = [item for item in found if item["binary"] == binary]
    for item in found if call.version < _CLUSTERS else ():
        item.pop("cluster", None)
    return {"services": found}


def _scheduler() -> dict[str, Any]:
    return {
        "binary": _SCHEDULER,
        "host": socket.gethostname(),
        "zone": "nova",
        "status": "enabled",
        "state": "up",
        "updated_at": utcnow(),
        "disabled_reason": None,
        "cluster": None,
    }


def _backend(row: Row[Any], version: int) -> dict[str, Any]:
    """`state` is the host's, once `backend_state` tells of its storage; before, it tells of both."""
    enabled, apart = bool(row.enabled) and not row.disabled, version >= _BACKEND_STATE
    told = {
        "binary": _VOLUME,
        "host": f"{row.host_id}@{row.backend}" if row.backend else row.host_id,
        "zone": row.availability_zone,
        "status": "enabled" if enabled else "disabled",
        "state": "up" if (row.answers if apart else row.reachable) else "down",
        "updated_at": row.last_seen,
        "disabled_reason": row.disabled_reason,
        "replication_status": "disabled",
        "active_backend_id": None,
        "frozen": bool(row.frozen),
        "cluster": row.cluster_name,
    }
    return {**told, "backend_state": "up" if row.reachable else "down"} if apart else told


async def _change(call: Call) -> dict[str, Any]:
    verb, given = call.params["action"], call.valid(ServiceAction)
    if verb not in _ENABLE:
        raise NotFound(noun="Action of a service", id=verb[:64])
    binary = given.binary or given.service or _VOLUME
    if given.host is None:
        raise BadRequest(reason="Missing required element 'host' in request body.")
    if binary != _VOLUME:
        if (binary, given.host) != (_SCHEDULER, _scheduler()["host"]):
            raise NotFound(noun="Service", id=f"{binary} on {given.host}"[:128])
        raise BadRequest(reason=f"Only services of binary {_VOLUME} can be enabled and disabled.")
    if verb == "disable-log-reason" and given.disabled_reason is None:
        raise BadRequest(reason="Missing required element 'disabled_reason' in request body.")
    enabled, name, reason = _ENABLE[verb], given.host, given.disabled_reason
    await call.services.db.write(lambda conn: state.set_enabled(conn, name, enabled=enabled, reason=reason))
    status = "enabled" if enabled else "disabled"
    made = {"host": name, "binary": binary, "service": binary, "disabled": not enabled, "status": status}
    if reason is not None and not enabled:
        made["disabled_reason"] = reason
    return made
