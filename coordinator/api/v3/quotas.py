"""Limits and quotas."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict
from sqlalchemy import Connection

from coordinator.api.acting import check_project
from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Body, Integer
from coordinator.api.paging import flag
from coordinator.api.route import Resource, delete, get, put
from coordinator.identity.errors import Forbidden
from coordinator.quota import limits
from coordinator.quota.usage import Usage, usage, used

_ABSOLUTE = (
    ("maxTotalVolumes", "totalVolumesUsed", "volumes"),
    ("maxTotalSnapshots", "totalSnapshotsUsed", "snapshots"),
    ("maxTotalVolumeGigabytes", "totalGigabytesUsed", "gigabytes"),
    ("maxTotalBackups", "totalBackupsUsed", "backups"),
    ("maxTotalBackupGigabytes", "totalBackupGigabytesUsed", "backup_gigabytes"),
)
_NOT_LIMITS = frozenset({"tenant_id", "project_id", "id", "force", "class_name"})


class QuotaSet(Body):
    """Limits by resource; -1 means no limit."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Integer | str | None]

    def values(self) -> dict[str, int]:
        given = {key: value for key, value in (self.model_extra or {}).items() if key not in _NOT_LIMITS}
        for key, value in given.items():
            if not isinstance(value, int) or isinstance(value, bool) or value > 2**31 - 1:
                raise BadRequest(reason=f"Quota limit for {key[:255]} must be an integer of -1 or more.")
        return given


def quotas() -> Resource:
    """Quota sets of projects, and the default class."""
    one, cls = "/os-quota-sets/{project_id}", "/os-quota-class-sets/{quota_class_name}"
    return Resource(
        "quotas",
        "Limits, quota sets and the default quota class.",
        (
            get("/limits", _limits, "limits_extension:used_limits", "Show limits and usage.", query=("project_id",)),
            get(one, _show, "volume_extension:quotas:show", "Show the quota of a project.", query=("usage",)),
            get(f"{one}/defaults", _defaults, "volume_extension:quotas:show", "Show the default quota."),
            put(one, _update, "volume_extension:quotas:update", "Change the quota of a project.", body=QuotaSet,
                body_key="quota_set", query=("skip_validation",)),
            delete(one, _reset, "volume_extension:quotas:delete", "Back to the default quota.", status=200),
            get(cls, _class, "volume_extension:quota_classes:get", "Show the default quota class."),
            put(cls, _update_class, "volume_extension:quota_classes:update", "Change the default quota class.",
                body=QuotaSet, body_key="quota_class_set"),
        ),
    )  # fmt: skip


async def _limits(call: Call) -> dict[str, Any]:
    project = call.context.project_id
    if call.version >= 39 and call.context.is_admin and call.query.get("project_id"):
        project = call.query["project_id"]

    def read(conn: Connection) -> tuple[dict[str, int], dict[str, int]]:
        return limits.limits(conn, project), used(conn, project)

    allowed, now = await call.services.db.read(read)
    absolute: dict[str, int] = {}
    for most, so_far, resource in _ABSOLUTE:
        absolute[most] = allowed[resource]
        absolute[so_far] = now.get(resource, 0)
    return {"limits": {"rate": [], "absolute": absolute}}


def _project(call: Call) -> str:
    """The project of the path; only administrators may name another than their own."""
    project = call.params["project_id"]
    if project != call.context.project_id and not call.context.is_admin:
        raise Forbidden(rule="volume_extension:quotas:show")
    return project


async def _show(call: Call) -> dict[str, Any]:
    project, with_usage = _project(call), flag(call, "usage")

    def read(conn: Connection) -> tuple[dict[str, int], Usage]:
        return limits.limits(conn, project), usage(conn, project) if with_usage else Usage()

    allowed, now = await call.services.db.read(read)
    made: dict[str, Any] = {"id": project}
    for resource, limit in allowed.items():
        if with_usage:
            in_use, reserved = now.in_use.get(resource, 0), now.reserved.get(resource, 0)
            made[resource] = {"limit": limit, "in_use": in_use, "reserved": reserved, "allocated": 0}
        else:
            made[resource] = limit
    return {"quota_set": made}


async def _defaults(call: Call) -> dict[str, Any]:
    return {"quota_set": {"id": _project(call), **await call.services.db.read(limits.defaults)}}


async def _update(call: Call) -> dict[str, Any]:
    project, values = call.params["project_id"], call.valid(QuotaSet).values()
    await check_project(call, project)
    check = not flag(call, "skip_validation") if "skip_validation" in call.query else False

    def write(conn: Connection) -> dict[str, int]:
        if check:
            now = used(conn, project)
            below = sorted(name for name, limit in values.items() if 0 <= limit < now.get(name, 0))
            if below:
                raise BadRequest(reason=f"Quota usage is already above the new limit for: {', '.join(below)}.")
        limits.put(conn, project, values)
        return limits.limits(conn, project)

    return {"quota_set": await call.services.db.write(write)}


async def _reset(call: Call) -> None:
    await call.services.db.write(lambda conn: limits.reset(conn, call.params["project_id"]))


async def _class(call: Call) -> dict[str, Any]:
    found = await call.services.db.read(limits.defaults)
    return {"quota_class_set": {"id": call.params["quota_class_name"], **found}}


async def _update_class(call: Call) -> dict[str, Any]:
    name, values = call.params["quota_class_name"], call.valid(QuotaSet).values()
    if name != "default":
        raise BadRequest(reason="Only the quota class 'default' has an effect.")

    def write(conn: Connection) -> dict[str, int]:
        limits.put(conn, limits.DEFAULT_CLASS, values)
        return limits.defaults(conn)

    return {"quota_class_set": await call.services.db.write(write)}
