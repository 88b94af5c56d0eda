"""What a back end can do, asked of its host at the moment of the call."""

from __future__ import annotations

from typing import Any

from agent.base.errors import NotFound
from coordinator.api.call import Call
from coordinator.api.fields import Answer
from coordinator.api.route import Resource, get
from coordinator.fleet.capabilities import Capabilities, capabilities
from coordinator.fleet.directory import Directory
from coordinator.state import services as state


class CapabilitiesAnswer(Answer):
    namespace: str
    vendor_name: str
    volume_backend_name: str
    pool_name: str | None
    driver_version: str
    storage_protocol: str
    display_name: str | None
    description: str | None
    visibility: str | None
    replication_targets: list[str]
    properties: dict[str, dict[str, Any]]


def resource() -> Resource:
    """One call."""
    return Resource(
        "capabilities",
        "Capabilities of back ends.",
        (
            get("/capabilities/{hostname}", _show, "volume_extension:capabilities",
                "Show what the back end of HOST@BACKEND understands.", answer=CapabilitiesAnswer),
        ),
    )  # fmt: skip


async def _show(call: Call) -> dict[str, Any]:
    name = call.params["hostname"]
    place, _, pool = name.partition("#")
    host, _, backend = place.partition("@")
    rows = await call.services.db.read(state.backends)
    if not any(row.host_id == host and backend in {"", row.backend} for row in rows):
        raise NotFound(noun="Service cinder-volume on host", id=name[:255])
    found = await capabilities(call.services.find(Directory), host, backend, pool)
    return {
        "namespace": f"OS::Storage::Capabilities::{name}",
        "vendor_name": "Brickyard",
        "volume_backend_name": found.backend,
        "pool_name": pool or None,
        "driver_version": "1",
        "storage_protocol": found.protocol,
        "display_name": None,
        "description": None,
        "visibility": None,
        "replication_targets": [],
        "properties": _properties(found),
    }


def _properties(found: Capabilities) -> dict[str, dict[str, Any]]:
    """The agreed ones; a title is for people, the default is what the back end does."""
    return {
        "thin_provisioning": _truth("Thin Provisioning", "Space is taken when it is written.", found.thin),
        "compression": _truth("Compression", "Data are compressed by the back end.", False),
        "qos": _truth("QoS", "The back end enforces limits.", False),
        "replication_enabled": _truth("Replication", "Data are kept in a second place.", False),
        "multiattach": _truth("Multiattach", "A volume can be used by several servers.", found.multiattach),
    }


def _truth(title: str, description: str, default: bool) -> dict[str, Any]:
    return {"title": title, "description": description, "type": "boolean", "default": default}
