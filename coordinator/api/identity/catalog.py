"""The service catalog: identity, block storage and image, all on this address."""

from __future__ import annotations

import hashlib
from typing import Any

from coordinator.api.call import Call
from coordinator.identity.local import LocalIdentity

_SERVICES = (
    ("identity", "keystone", "/identity"),
    ("block-storage", "cinder", "/v3"),
    ("volumev3", "cinder", "/v3/{project}"),
    ("image", "glance", "/image"),
)


def catalog(call: Call, project_id: str | None) -> list[dict[str, Any]]:
    """One entry per service, each with a public, internal and admin endpoint of the same address."""
    region = call.services.get(LocalIdentity).settings.region
    made = []
    for kind, name, path in _SERVICES:
        url = call.base_url + path.replace("/{project}", f"/{project_id}" if project_id else "")
        endpoints = [
            {"id": _id(kind, interface), "interface": interface, "region": region, "region_id": region, "url": url}
            for interface in ("public", "internal", "admin")
        ]
        made.append({"id": _id(kind), "type": kind, "name": name, "endpoints": endpoints})
    return made


def _id(*words: str) -> str:
    """The same on every coordinator and after each start."""
    return hashlib.sha256("/".join(words).encode()).hexdigest()[:32]
