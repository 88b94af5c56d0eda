"""What the caller can do on this site, feature by feature: what its hosts are able to now, and policy lets him."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from coordinator.api.call import Call
from coordinator.api.fields import Answer
from coordinator.api.route import Resource, get
from coordinator.api.v3.types import visible_to
from coordinator.images.client import ImageClient
from coordinator.state import types
from coordinator.state.tables.fleet import hosts, pools
from coordinator.state.tables.types import type_encryption

_TRUE = "<is> True"


@dataclass(frozen=True, slots=True)
class Site:
    """What hosts that answer, and take new volumes, say of their pools; `images`: whether images can be kept."""

    pools: Sequence[dict[str, Any]]
    images: bool
    encrypted: frozenset[str]
    """Types whose volumes are encrypted."""


@dataclass(frozen=True, slots=True)
class _Feature:
    description: str
    rules: tuple[str, ...]
    there: Callable[[Site], bool]


_ACTIONS = "volume_extension:volume_actions:"
_FEATURES = {
    "volume-encryption": _Feature(
        "Volumes of some types are encrypted.", ("volume:create",), lambda site: bool(site.pools and site.encrypted)
    ),
    "volume-extend-attached": _Feature(
        "Volumes grow while they are attached.",
        ("volume:extend", "volume:extend_attached_volume"),
        lambda site: bool(site.pools),
    ),
    "volume-image-upload": _Feature(
        "Images are made of volumes.", (f"{_ACTIONS}upload_image",), lambda site: bool(site.pools and site.images)
    ),
    "volume-multiattach": _Feature(
        "Volumes of some types are attached several times.",
        ("volume:multiattach",),
        lambda site: any(pool.get("multiattach") for pool in site.pools),
    ),
    "volume-revert": _Feature(
        "Volumes go back to their latest snapshot.", ("volume:revert_to_snapshot",), lambda site: bool(site.pools)
    ),
    "volume-snapshot": _Feature(
        "Snapshots of volumes.", ("volume:create_snapshot",), lambda site: bool(site.pools)
    ),
    "volume-transfer": _Feature(
        "Volumes are handed to other projects.", ("volume:create_transfer",), lambda site: True
    ),
}  # fmt: skip


class FeatureAnswer(Answer):
    name: str
    description: str


class FeaturesAnswer(Answer):
    capabilities: list[FeatureAnswer]


def _site(conn: Connection, *, images: bool) -> Site:
    live = select(pools.c.reported, hosts.c.keeps_images).join(hosts, pools.c.host_id == hosts.c.id)
    rows = conn.execute(live.where(pools.c.present, ~pools.c.disabled, hosts.c.reachable, hosts.c.enabled)).all()
    keeps = images or any(row.keeps_images for row in rows)
    encrypted = frozenset(conn.execute(select(type_encryption.c.volume_type_id)).scalars())
    return Site([row.reported or {} for row in rows], keeps, encrypted)


def _offered(call: Call, site: Site) -> list[dict[str, str]]:
    return [
        {"name": name, "description": feature.description}
        for name, feature in _FEATURES.items()
        if feature.there(site) and all(call.may(rule) for rule in feature.rules)
    ]


def _outside(call: Call) -> bool:
    client = call.services.find(ImageClient)
    return client is not None and client.outside


async def of_site(call: Call) -> dict[str, Any]:
    def read(conn: Connection) -> Site:
        found = _site(conn, images=_outside(call))
        seen = {row.id for row in types.listing(conn, visible_to(call))}
        return Site(found.pools, found.images, found.encrypted & seen)

    return {"capabilities": _offered(call, await call.services.db.read(read))}


async def of_type(call: Call) -> dict[str, Any]:
    """Of the site's, what volumes of one type have."""

    def read(conn: Connection) -> Site:
        found = _site(conn, images=_outside(call))
        row = types.get(conn, call.params["volume_type_id"], visible_to(call))
        several = types.extra_specs(conn, row.id).get("multiattach") == _TRUE
        told = [{**pool, "multiattach": several and pool.get("multiattach")} for pool in found.pools]
        return Site(told, found.images, found.encrypted & {row.id})

    return {"capabilities": _offered(call, await call.services.db.read(read))}


def resource() -> Resource:
    """The routes."""
    return Resource(
        "features",
        "What the caller can do on this site.",
        (
            get("/capabilities", of_site, "volume_extension:type_get_all", "List what the site offers the caller.",
                answer=FeaturesAnswer),
            get("/types/{volume_type_id}/capabilities", of_type, "volume_extension:type_get",
                "List what volumes of a type have of it.", answer=FeaturesAnswer),
        ),
        prefix="/brickyard/v1",
    )  # fmt: skip
