"""Back ends as hosts: what each holds, and whether it takes new volumes."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Connection

from agent.base.errors import NotFound
from coordinator.api.call import Call
from coordinator.api.fields import Body
from coordinator.api.route import Resource, get, put
from coordinator.state import services as state
from coordinator.state.host_usage import Held, held

_TOTAL = "(total)"


class HostUpdate(Body):
    status: Literal["enable", "disable"]


def resource() -> Resource:
    """List, show, enable and disable."""
    one, rule = "/os-hosts/{host_name}", "volume_extension:hosts"
    return Resource(
        "os-hosts",
        "Back ends as hosts.",
        (
            get("/os-hosts", _list, rule, "List hosts.", query=("zone",)),
            get(one, _show, rule, "Show what lies on a host, by project."),
            put(one, _update, rule, "Let a host take new volumes or not.", body=HostUpdate),
        ),
    )  # fmt: skip


def _name(row: Any) -> str:
    return f"{row.host_id}@{row.backend}" if row.backend else str(row.host_id)


async def _list(call: Call) -> dict[str, Any]:
    rows = await call.services.db.read(state.backends)
    zone = call.query.get("zone")
    return {
        "hosts": [
            {
                "host_name": _name(row),
                "service": "cinder-volume",
                "zone": row.availability_zone,
                "service-status": "available" if row.reachable else "unavailable",
                "service-state": "enabled" if row.enabled and not row.disabled else "disabled",
                "last-update": row.last_seen,
            }
            for row in rows
            if zone in {None, row.availability_zone}
        ]
    }


def _known(conn: Connection, name: str) -> tuple[str, str | None]:
    """Host and back end of a name; raises NotFound."""
    host, _, backend = name.partition("#")[0].partition("@")
    if not any(row.host_id == host and backend in {"", row.backend} for row in state.backends(conn)):
        raise NotFound(noun="Host", id=name[:255])
    return host, backend or None


async def _show(call: Call) -> dict[str, Any]:
    name = call.params["host_name"]
    found = await call.services.db.read(lambda conn: held(conn, *_known(conn, name)))
    total = Held()
    for each in found.values():
        total.volumes += each.volumes
        total.volume_gb += each.volume_gb
        total.snapshots += each.snapshots
        total.snapshot_gb += each.snapshot_gb
    rows = [(_TOTAL, total), *sorted(found.items(), key=lambda item: item[0])]
    return {"host": [{"resource": _resource(name, project, each)} for project, each in rows]}


def _resource(host: str, project: str, each: Held) -> dict[str, str]:
    return {
        "host": host,
        "project": project,
        "volume_count": str(each.volumes),
        "total_volume_gb": str(each.volume_gb),
        "snapshot_count": str(each.snapshots),
        "total_snapshot_gb": str(each.snapshot_gb),
    }


async def _update(call: Call) -> dict[str, Any]:
    name, enabled = call.params["host_name"], call.valid(HostUpdate).status == "enable"

    def change(conn: Connection) -> None:
        _known(conn, name)
        state.set_enabled(conn, name.partition("#")[0], enabled=enabled)

    await call.services.db.write(change)
    return {"host": name, "status": "enabled" if enabled else "disabled"}
