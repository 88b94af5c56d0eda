"""What the site has: pools, zones, filters, extensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import NotFound
from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.paging import flag
from coordinator.api.resource_filters import ResourceFilters
from coordinator.api.route import Resource, get
from coordinator.scheduler.factors import factors
from coordinator.scheduler.placement import Scheduler
from coordinator.scheduler.pool import of_row
from coordinator.scheduler.specs import lacking
from coordinator.state import fleet, services, types

_FACTORS = 1  # brickyard 1.1
_UPDATED = "2016-01-01T00:00:00+00:00"
_EXTENSIONS = {
    "os-admin-actions": ("AdminActions", "Reset states, force deletions."),
    "os-availability-zone": ("AvailabilityZones", "Availability zones."),
    "os-extended-snapshot-attributes": ("ExtendedSnapshotAttributes", "Project and progress of snapshots."),
    "os-hosts": ("Hosts", "Hosts and what lies on them."),
    "os-quota-class-sets": ("QuotaClasses", "The default quota class."),
    "os-quota-sets": ("Quotas", "Quota sets of projects."),
    "os-services": ("Services", "Services."),
    "os-types-extra-specs": ("TypesExtraSpecs", "Extra specs of volume types."),
    "os-types-manage": ("TypesManage", "Create and delete volume types."),
    "os-used-limits": ("UsedLimits", "Usage beside limits."),
    "os-vol-host-attr": ("VolumeHostAttribute", "The host of a volume."),
    "os-vol-tenant-attr": ("VolumeTenantAttribute", "The project of a volume."),
    "os-volume-actions": ("VolumeActions", "Actions of volumes."),
    "os-volume-encryption-metadata": ("VolumeEncryptionMetadata", "The encryption of a volume."),
    "os-volume-type-access": ("VolumeTypeAccess", "Private volume types."),
    "encryption": ("VolumeTypeEncryption", "Encryption of volume types."),
    "scheduler-stats": ("Scheduler_stats", "Pools."),
}


def site() -> Resource:
    """Pools, availability zones, resource filters, extensions."""
    return Resource(
        "site",
        "What the site has.",
        (
            get("/scheduler-stats/get_pools", _pools, "scheduler_extension:scheduler_stats:get_pools",
                "List pools with their capacity.", query=("detail", "name", "volume_type", "volume-type"),
                query_since=(("name", 28), ("volume_type", 35), ("volume-type", 35))),
            get("/os-availability-zone", _zones, None, "List availability zones."),
            get("/resource_filters", _filters, None, "List the filters of lists.", since=33, query=("resource",)),
            get("/extensions", _extensions, None, "List extensions."),
            get("/extensions/{alias}", _extension, None, "Show an extension."),
        ),
    )  # fmt: skip


async def _pools(call: Call) -> dict[str, Any]:
    detail, wanted = flag(call, "detail"), _wanted(call)

    def read(conn: Connection) -> tuple[dict[str, str], Sequence[Row[Any]]]:
        asked = wanted.get("volume_type")
        specs = types.extra_specs(conn, types.find(conn, asked).id) if asked else {}
        return specs, fleet.pools_of(conn)

    specs, rows = await call.services.db.read(read)
    found, calculation = [], call.services.get(Scheduler).calculation
    for row in rows:
        if not row.present or wanted.get("name", row.id) != row.id:
            continue
        pool = of_row(row, calculation)
        told = pool.capabilities
        if lacking(told, specs) is None:
            found.append(_pool(row, told) if detail else {"name": row.id})
            if detail and call.brickyard >= _FACTORS:
                found[-1]["capacity_factors"] = factors(pool)
    return {"pools": found}


def _wanted(call: Call) -> dict[str, str]:
    """The filters: what the site allows, for administrators too; before 3.31 others are passed over."""
    site = call.services.find(ResourceFilters) or ResourceFilters.builtin()
    known = {"name": 28, "volume_type": 35}
    wanted = {}
    for given, value in call.query.items():
        name = given.replace("-", "_")
        if name in known and name in site.of("pool") and call.version >= known[name]:
            wanted[name] = value
        elif given != "detail" and name not in known and call.version >= 31:
            raise BadRequest(reason=f"pools can not be filtered by {given[:64]!r}")
    return wanted


def _pool(row: Row[Any], told: dict[str, Any]) -> dict[str, Any]:
    protocols = told["storage_protocol"]
    state = {"backend_state": "up" if row.reachable else "down", "location_info": None, "timestamp": row.updated_at}
    # The `cinder` shell shows both levels as one, by which a second name would hide the first.
    shown = {key: value for key, value in told.items() if key != "name"}
    return {"name": row.id, "capabilities": {**shown, "storage_protocol": protocols[0], **state}}


async def _zones(call: Call) -> dict[str, Any]:
    found = await call.services.db.read(services.zones) or {"nova": False}
    return {
        "availabilityZoneInfo": [
            {"zoneName": name, "zoneState": {"available": available}} for name, available in sorted(found.items())
        ]
    }


async def _filters(call: Call) -> dict[str, Any]:
    wanted = call.query.get("resource")
    found = (call.services.find(ResourceFilters) or ResourceFilters.builtin()).names
    names = [name for name in found if wanted in {None, "", name}]
    return {"resource_filters": [{"resource": name, "filters": list(found[name])} for name in names]}


def _described(alias: str) -> dict[str, Any]:
    name, description = _EXTENSIONS[alias]
    return {"alias": alias, "name": name, "description": description, "updated": _UPDATED, "links": []}


async def _extensions(call: Call) -> dict[str, Any]:
    return {"extensions": [_described(alias) for alias in _EXTENSIONS]}


async def _extension(call: Call) -> dict[str, Any]:
    alias = call.params["alias"]
    if alias not in _EXTENSIONS:
        raise NotFound(noun="Extension", id=alias[:64])
    return {"extension": _described(alias)}
