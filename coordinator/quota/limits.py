"""Limits of a project, and whether something fits into them. -1 means no limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete

from agent.base.errors import Invalid
from coordinator.quota import tree
from coordinator.quota.errors import GigabytesLimit, OverQuota, SnapshotLimit, TypeClosed, VolumeLimit, VolumeSizeLimit
from coordinator.quota.given import APART, UNLIMITED, first, own, written
from coordinator.quota.usage import used
from coordinator.state import hierarchy, types
from coordinator.state.locks import hold_name
from coordinator.state.tables.quotas import quota_limits
from coordinator.state.together import once
from coordinator.state.types import PER_TYPE
from coordinator.state.usage import rules

_ERRORS: dict[str, type[OverQuota]] = {
    "volumes": VolumeLimit,
    "snapshots": SnapshotLimit,
    "gigabytes": GigabytesLimit,
}


def limits(conn: Connection, project_id: str) -> dict[str, int]:
    """Every resource with its limit for this project, those of the types it can see (`volumes_TYPE`, …) included.

    Of a type that it can not see (any more) it has nothing to get: 0, told only where it has something of it.
    """
    found = own(conn, project_id)
    seen = _per_type(types.listing(conn, project_id))
    hidden = _per_type(types.listing(conn)).keys() - seen.keys()
    held = used(conn, project_id) if hidden else {}
    found = {name: limit for name, limit in found.items() if name not in hidden}
    return {**seen, **found, **{name: 0 for name in sorted(hidden) if held.get(name)}}


def defaults(conn: Connection, project_id: str | None = None) -> dict[str, int]:
    """What a project (or this one) has that was never changed."""
    return {**_per_type(types.listing(conn)), **first(conn, project_id)}


def allocated(conn: Connection, project_id: str) -> dict[str, int]:
    """What projects below this one have taken of its limits; nothing where that does not count."""
    if not rules(conn).nested or not hierarchy.children(conn, project_id):
        return {}
    found = tree.Tree(conn)
    return {name: found.allocated(project_id, name) for name in defaults(conn) if name not in APART}


def put(conn: Connection, project_id: str, values: dict[str, int]) -> None:
    """Set limits of a project (or of `class:NAME`); raises Invalid for unknown resources or numbers below -1.

    Where quotas are shared out in the tree of projects, also for what that can not have.
    """
    known = defaults(conn)
    for resource, limit in values.items():
        if resource not in known:
            raise Invalid(reason=f"Bad key(s) in quota set: {resource}")
        if limit < UNLIMITED:
            raise Invalid(reason=f"Quota limit {limit} for {resource} must be -1 or more.")
    if rules(conn).nested and not project_id.startswith("class:"):
        tree.check_change(conn, project_id, values)
    table = quota_limits
    conn.execute(delete(table).where(table.c.project_id == project_id, table.c.resource.in_(values)))
    rows = [{"project_id": project_id, "resource": name, "hard_limit": limit} for name, limit in values.items()]
    if rows:
        conn.execute(table.insert(), rows)


def reset(conn: Connection, project_id: str) -> None:
    """Back to the defaults; raises Invalid while projects below it have something of it."""
    if rules(conn).nested:
        tree.check_reset(conn, project_id, defaults(conn))
    conn.execute(delete(quota_limits).where(quota_limits.c.project_id == project_id))


def check(
    conn: Connection, project_id: str, type_name: str | None, *, volumes: int = 0, snapshots: int = 0,
    gigabytes: int = 0, snapshot_gigabytes: int = 0, volume_size: int | None = None
) -> None:  # fmt: skip
    """Raise the error of the first limit that these additions would pass; call it in the spending transaction."""
    allowed = dict(once(conn, ("limits", project_id), lambda: own(conn, project_id)))
    largest = allowed["per_volume_gigabytes"]
    if volume_size is not None and 0 <= largest < volume_size:
        raise VolumeSizeLimit(resource="per_volume_gigabytes", requested=volume_size, limit=largest, used=0)
    if rules(conn).snapshots_take_space:
        gigabytes += snapshot_gigabytes
    wanted = {"volumes": volumes, "snapshots": snapshots, "gigabytes": gigabytes}
    _afford(conn, project_id, allowed, wanted, ("", *_suffix(conn, project_id, type_name, allowed)))


def check_type(conn: Connection, project_id: str, type_name: str, **more: int) -> None:
    """Like `check` for what a project has already and now counts to another type: only that type's own limits."""
    allowed = written(conn, project_id)
    _afford(conn, project_id, allowed, more, _suffix(conn, project_id, type_name, allowed))


def _suffix(conn: Connection, project_id: str, type_name: str | None, allowed: dict[str, int]) -> tuple[str, ...]:
    """That of the type's own limits; `allowed` then says 0 for a type that the project can not see."""
    if type_name is None:
        return ()
    suffix = f"_{type_name}"
    if types.is_hidden(conn, type_name, project_id):
        allowed.update({f"{resource}{suffix}": 0 for resource in PER_TYPE})
    return (suffix,)


def _afford(
    conn: Connection, project_id: str, allowed: Mapping[str, int], wanted: Mapping[str, int], suffixes: tuple[str, ...]
) -> None:
    """Nothing is counted, and nobody waits for others of the project, where nothing is limited."""
    if rules(conn).nested:
        _afford_in_tree(conn, project_id, allowed, wanted, suffixes)
        return
    limited = [
        (resource, f"{resource}{suffix}", more)
        for resource, more in wanted.items()
        for suffix in suffixes
        if more > 0 and allowed.get(f"{resource}{suffix}", UNLIMITED) != UNLIMITED
    ]
    if not limited:
        return
    once(conn, ("quota", project_id), lambda: hold_name(conn, f"quota:{project_id}"))
    usage = used(conn, project_id)
    for resource, name, more in limited:
        now = usage.get(name, 0)
        if now + more > allowed[name]:
            raise _over(conn, project_id, resource, name, requested=more, used=now, limit=allowed[name])


def _afford_in_tree(
    conn: Connection, project_id: str, allowed: Mapping[str, int], wanted: Mapping[str, int], suffixes: tuple[str, ...]
) -> None:
    """What has no limit here counts against the next limit above; a hidden type has 0 in `allowed` alone."""
    tree.check_known(conn, project_id)
    found = tree.Tree(conn)
    for resource, more in wanted.items():
        for name in (f"{resource}{suffix}" for suffix in suffixes if more > 0):
            if allowed.get(name) == 0:
                held = found.used(project_id, name)
                raise _over(conn, project_id, resource, name, requested=more, used=held, limit=0)
            room = found.free(project_id, name)
            if room is not None and more > room[1]:
                limit = found.limit(room[0], name)
                raise _over(conn, project_id, resource, name, requested=more, used=limit - room[1], limit=limit)


def _over(conn: Connection, project_id: str, resource: str, name: str, **counted: int) -> OverQuota:
    """The error of one limit, with the command that raises it."""
    of_type = name.removeprefix(resource)[1:]
    if of_type and types.is_hidden(conn, of_type, project_id):
        return TypeClosed(type=of_type)
    options = f"--{resource} N" + (f" --volume-type {of_type}" if of_type else "")
    return _ERRORS[resource](resource=name, options=options, **counted)


def _per_type(found: Sequence[Row[Any]]) -> dict[str, int]:
    return {f"{resource}_{row.name}": UNLIMITED for row in found for resource in PER_TYPE}
