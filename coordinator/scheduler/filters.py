"""Rules that a pool must meet; each says in words why a pool does not, so that a refusal can be explained."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from coordinator.scheduler import expression, specs
from coordinator.scheduler.errors import BadExpression
from coordinator.scheduler.pool import GIB, Pool
from coordinator.scheduler.request import Request

Rule = Callable[[Pool, Request], str | None]


def availability_zone(pool: Pool, request: Request) -> str | None:
    allowed = specs.zones(request.extra_specs)
    asked = request.availability_zone in {None, pool.availability_zone}
    if asked and (allowed is None or pool.availability_zone in allowed):
        return None
    return f"is in availability zone {pool.availability_zone}"


def capabilities(pool: Pool, request: Request) -> str | None:
    missing = specs.lacking(pool.capabilities, request.extra_specs)
    return f"lacks {missing}" if missing else None


def capacity(pool: Pool, request: Request) -> str | None:
    """What takes no space of its own passes: it may lie in a pool that holds too much already."""
    return pool.why_full(request.device_bytes, request.wants_thick) if request.device_bytes else None


def driver(pool: Pool, request: Request) -> str | None:
    """The back end's own `filter_function`; one that can not be evaluated refuses, as it must not be ignored."""
    function = pool.capabilities.get("filter_function")
    if not function:
        return None
    try:
        passes = any(bool(expression.evaluate(str(function), each)) for each in scopes(pool, request))
    except BadExpression as error:
        return f"has a filter_function that can not be evaluated ({error})"
    return None if passes else "refuses by its filter_function"


def same_backend(pool: Pool, request: Request) -> str | None:
    wanted = request.hints.same
    return None if not wanted or _backend(pool) in wanted else "does not hold the volumes of hint same_host"


def different_backend(pool: Pool, request: Request) -> str | None:
    return "holds a volume of hint different_host" if _backend(pool) in request.hints.different else None


def instance_locality(pool: Pool, request: Request) -> str | None:
    host = request.hints.local_to_host
    return None if host is None or pool.host_id == host else f"is not on host {host}"


def json_query(pool: Pool, request: Request) -> str | None:
    """A hint like `["and", [">=", "$free_capacity_gb", 10], ["=", "$media", "ssd"]]`."""
    if request.hints.query is None:
        return None
    try:
        passes = _asked(json.loads(request.hints.query), pool)
    except (ValueError, TypeError, IndexError, RecursionError):
        return "can not be compared with the hint query: it is not understood"
    return None if passes else "does not meet the hint query"


FILTERS: dict[str, Rule] = {
    "AvailabilityZoneFilter": availability_zone,
    "CapabilitiesFilter": capabilities,
    "DriverFilter": driver,
    "SameBackendFilter": same_backend,
    "DifferentBackendFilter": different_backend,
    "InstanceLocalityFilter": instance_locality,
    "JsonFilter": json_query,
    "CapacityFilter": capacity,
}
"""By the names that operators know from Cinder."""


def scopes(pool: Pool, request: Request) -> Iterator[dict[str, dict[str, Any]]]:
    """The names that an expression may use; once for each protocol by which the pool can be reached."""
    known = dict(pool.capabilities)
    told = known["storage_protocol"]
    for protocol in [told] if isinstance(told, str) else told:
        yield _scope(pool, request, {**known, "storage_protocol": protocol})


def _scope(pool: Pool, request: Request, known: dict[str, Any]) -> dict[str, dict[str, Any]]:
    volume = {"size": request.device_bytes / GIB, **request.volume}
    return {
        "stats": {"host": pool.id, **known},
        "capabilities": {**known, "total_volumes": known.get("total_volumes", pool.volumes)},
        "volume": volume,
        "extra": dict(request.extra_specs),
        "qos": dict(request.qos),
    }


def _backend(pool: Pool) -> str:
    return f"{pool.host_id}@{pool.backend}"


def _asked(query: Any, pool: Pool) -> bool:
    sign, *operands = query
    if sign in {"and", "or"}:
        answers = (_asked(operand, pool) for operand in operands)
        return all(answers) if sign == "and" else any(answers)
    if sign == "not":
        return not _asked(operands[0], pool)
    left, *right = (_named(operand, pool) for operand in operands)
    if sign == "in":
        return left in right
    tests = {"=": left == right[0], "<": left < right[0], ">": left > right[0], "<=": left <= right[0],
             ">=": left >= right[0]}  # fmt: skip
    if sign not in tests:
        raise ValueError(sign)
    return bool(tests[sign])


def _named(operand: Any, pool: Pool) -> Any:
    if isinstance(operand, str) and operand.startswith("$"):
        if operand[1:] not in pool.capabilities:
            raise ValueError(operand)
        return pool.capabilities[operand[1:]]
    return operand
