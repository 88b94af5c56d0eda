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
from coordinator.api.project_tree import ProjectTree, may_change, may_look
from coordinator.api.route import Resource, delete, get, put
from coordinator.identity.errors import Forbidden
from coordinator.quota import given, limits, tree
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
            get("/limits", _limits, "limits_extension:used_limits", "Show limits and usage.", query=("project_id",),
                query_since=(("project_id", 39),)),
            get("/os-quota-sets/validate_setup_for_nested_quota_use", _validated, "volume_extension:quotas:update",
                "Check that quotas can be shared out in the tree of projects.", query=("fix_allocated_quotas",)),
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


async def _project(call: Call) -> str:
    """The project of the path; only administrators may name another than their own, or (in a tree) one below it."""
    project, projects = call.params["project_id"], call.services.find(ProjectTree)
    if projects is not None:
        await projects.learn(project)
        await call.services.db.read(lambda conn: may_look(conn, call.context, project))
    elif project != call.context.project_id and not call.context.is_admin:
        raise Forbidden(rule="volume_extension:quotas:show")
    return project


async def _show(call: Call) -> dict[str, Any]:
    project, with_usage = await _project(call), flag(call, "usage")

    def read(conn: Connection) -> tuple[dict[str, int], Usage, dict[str, int]]:
        allowed = limits.limits(conn, project)
        return (
            (allowed, usage(conn, project), limits.allocated(conn, project)) if with_usage else (allowed, Usage(), {})
        )

    allowed, now, below = await call.services.db.read(read)
    made: dict[str, Any] = {"id": project}
    for resource, limit in allowed.items():
        if with_usage:
            in_use, reserved = now.in_use.get(resource, 0), now.reserved.get(resource, 0)
            handed_down = below.get(resource, 0)
            made[resource] = {"limit": limit, "in_use": in_use, "reserved": reserved, "allocated": handed_down}
        else:
            made[resource] = limit
    return {"quota_set": made}


async def _defaults(call: Call) -> dict[str, Any]:
    project = await _project(call)
    return {"quota_set": {"id": project, **await call.services.db.read(lambda conn: limits.defaults(conn, project))}}


async def _update(call: Call) -> dict[str, Any]:
    project, values = call.params["project_id"], call.valid(QuotaSet).values()
    await check_project(call, project)
    nested = await _in_tree(call, project)
    check = not flag(call, "skip_validation") if "skip_validation" in call.query else False

    def write(conn: Connection) -> dict[str, int]:
        if nested:
            may_change(conn, call.context, project)
        if check:
            now = used(conn, project)
            below = [f"{name} ({limit} asked for, {now[name]} in use)"
                     for name, limit in sorted(values.items()) if 0 <= limit < now.get(name, 0)]  # fmt: skip
            if below:
                raise BadRequest(
                    reason=f"Quota limits must be equal to or greater than what is in use: {', '.join(below)}. "
                    "With skip_validation=True a lower one is set, and nothing more can be made."
                )
        limits.put(conn, project, values)
        return limits.limits(conn, project)

    return {"quota_set": await call.services.db.write(write)}


async def _in_tree(call: Call, project: str) -> bool:
    """Whether quotas are shared out in the tree of projects; then what lies above this one is known."""
    projects = call.services.find(ProjectTree)
    if projects is not None:
        await projects.learn(project)
    return projects is not None


async def _reset(call: Call) -> None:
    project = call.params["project_id"]
    nested = await _in_tree(call, project)

    def write(conn: Connection) -> None:
        if nested:
            may_change(conn, call.context, project)
        limits.reset(conn, project)

    await call.services.db.write(write)


async def _validated(call: Call) -> dict[str, Any]:
    """`fix_allocated_quotas` has nothing to do: what is handed down is computed, never stored."""
    if call.services.find(ProjectTree) is None:
        raise BadRequest(reason="Quotas are not shared out in the tree of projects here (quota.nested).")
    await call.services.db.read(lambda conn: tree.check_all(conn, limits.defaults(conn)))
    return {}


async def _class(call: Call) -> dict[str, Any]:
    found = await call.services.db.read(limits.defaults)
    return {"quota_class_set": {"id": call.params["quota_class_name"], **found}}


async def _update_class(call: Call) -> dict[str, Any]:
    name, values = call.params["quota_class_name"], call.valid(QuotaSet).values()
    if name != "default":
        raise BadRequest(reason="Only the quota class 'default' has an effect.")

    def write(conn: Connection) -> dict[str, int]:
        limits.put(conn, given.DEFAULT_CLASS, values)
        return limits.defaults(conn)

    return {"quota_class_set": await call.services.db.write(write)}
