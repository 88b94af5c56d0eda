"""A pool's figures as the scheduler works with them, for those who watch capacity: the same functions decide."""

from __future__ import annotations

from typing import Any

from coordinator.scheduler.pool import GIB, Pool


def factors(pool: Pool) -> list[dict[str, Any]]:
    """One for each way that volumes are made in it, in GiB. `virtual_free_capacity` is the largest that still fits."""
    ways = [False] if pool.thin else []
    if pool.thick or not pool.thin:
        ways.insert(0, True)
    return [_of(pool, thick) for thick in ways]


def _of(pool: Pool, thick: bool) -> dict[str, Any]:
    limit, usable = pool.limit(thick), max(pool.total - pool.reserved, 0)
    left = limit - pool.provisioned
    return {
        "provisioned_type": "thick" if thick else "thin",
        "total_capacity": _gib(pool.total),
        "free_capacity": _gib(pool.free),
        "reserved_capacity": _gib(pool.reserved),
        "total_reserved_available_capacity": _gib(usable),
        "max_over_subscription_ratio": None if thick else pool.ratio,
        "total_available_capacity": _gib(limit),
        "provisioned_capacity": _gib(pool.provisioned),
        "calculated_free_capacity": _gib(left),
        "virtual_free_capacity": _gib(pool.room(thick)),
        "free_percent": round(100 * left / limit, 2) if limit else 0,
        "provisioned_ratio": round(pool.provisioned / limit, 2) if limit else 0,
    }


def _gib(size: int) -> float:
    return round(size / GIB, 2)
