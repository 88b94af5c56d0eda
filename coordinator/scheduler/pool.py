"""A pool as the scheduler sees it: the one place that says what its figures mean and whether something fits.

All sizes are bytes. `total` and `free` are physical, as the host measured them; `provisioned` is what was promised to
volumes (ours by their rows, and foreign ones as the host told; no snapshots); `allocated` what the host has made. What
is reserved is a share of the total, taken off before anything else.

| | limit of promises | also needed |
|---|---|---|
| thick | total - reserved | free - reserved >= what is new |
| thin  | (total - reserved) * ratio | (free - reserved) * ratio >= what is new: a full thin pool breaks every volume |

Of thin promises an operator may look at one of the two alone: at the first (`standard`) or at the second (`cinder`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from sys import intern
from typing import TYPE_CHECKING, Any, Literal

from coordinator.scheduler.told import Told, shared

if TYPE_CHECKING:
    from sqlalchemy import Row

GIB = 1 << 30
Calculation = Literal["both", "standard", "cinder"]
"""What decides whether a thin promise fits."""


@dataclass(slots=True)
class Pool:
    """`refusal` is why nothing at all is placed here now, or None; `away` that only the host's silence is why."""

    id: str
    host_id: str
    backend: str
    name: str
    availability_zone: str
    thin: bool
    thick: bool
    total: int
    free: int
    provisioned: int
    allocated: int
    reserved_percent: int
    ratio: float
    told: Told = field(repr=False)
    foreign: int = 0
    refusal: str | None = None
    away: bool = False
    volumes: int = 0
    cluster: str | None = None
    calculation: Calculation = "both"

    @property
    def capabilities(self) -> dict[str, Any]:
        """What clients see of a pool and volume types may ask for: Cinder's names, then the pool's own."""
        figures = {
            "backend": self.backend,
            "name": self.name,
            "total_bytes": self.total,
            "free_bytes": self.free,
            "allocated_bytes": self.allocated,
            "volume_backend_name": self.backend,
            "pool_name": self.name,
            "total_capacity_gb": round(self.total / GIB, 2),
            "free_capacity_gb": round(self.free / GIB, 2),
            "allocated_capacity_gb": round(self.ours / GIB, 2),
            "provisioned_capacity_gb": round(self.provisioned / GIB, 2),
            "max_over_subscription_ratio": str(self.ratio),
            "reserved_percentage": self.reserved_percent,
        }
        return {**self.told.common, **figures, **self.told.own}

    @property
    def ours(self) -> int:
        """What of it was promised to volumes of ours."""
        return max(self.provisioned - self.foreign, 0)

    @property
    def reserved(self) -> int:
        return self.total * self.reserved_percent // 100

    def thick_for(self, wants_thick: bool) -> bool:
        """Whether a request is judged by physical space alone: a pool that can do both asks the volume type."""
        return not self.thin or (wants_thick and self.thick)

    def limit(self, thick: bool) -> int:
        """Most bytes that may be promised."""
        usable = max(self.total - self.reserved, 0)
        return usable if thick else int(usable * self.ratio)

    def room(self, wants_thick: bool = False) -> int:
        """Bytes that may still be promised; below zero when too much was promised already."""
        thick = self.thick_for(wants_thick)
        return self._least(thick, self._measured(thick))

    def spare(self, wants_thick: bool = False) -> int:
        """What is left by `room` when all that was promised is written: by this pools are compared.

        Thin volumes take no space until they are written; by `room` alone all would go to one pool.
        """
        thick = self.thick_for(wants_thick)
        return self._least(thick, self._measured(thick) - max(self.ours - self.allocated, 0))

    def _measured(self, thick: bool) -> int:
        """What the free space allows, whatever was promised."""
        physical = max(self.free - self.reserved, 0)
        return physical if thick else int(physical * self.ratio)

    def _least(self, thick: bool, measured: int) -> int:
        promisable = self.limit(thick) - self.provisioned
        if thick or self.calculation == "both":
            return min(promisable, measured)
        return promisable if self.calculation == "standard" else measured

    def why_full(self, size: int, wants_thick: bool = False) -> str | None:
        """Why `size` more bytes do not fit, in words; None when they do."""
        if size <= self.room(wants_thick):
            return None
        thick = self.thick_for(wants_thick)
        limit = self.limit(thick)
        if self.provisioned + size > limit and (thick or self.calculation != "cinder"):
            return f"would be over-committed ({_gib(self.provisioned)} of {_gib(limit)} promised)"
        return f"has {_gib(self.free)} free" + (f", {_gib(self.reserved)} of it reserved" if self.reserved else "")


def of_row(row: Row[Any], calculation: Calculation = "both") -> Pool:
    """From a row of pools joined with its host."""
    reported = row.reported or {}
    thick = bool(reported.get("thick", not row.thin))
    return Pool(
        id=row.id,
        host_id=intern(row.host_id),
        backend=intern(row.backend),
        name=intern(row.name),
        availability_zone=intern(row.availability_zone),
        thin=row.thin,
        thick=thick,
        total=row.total_bytes,
        free=row.free_bytes,
        provisioned=row.provisioned_bytes,
        allocated=int(reported.get("allocated_bytes", 0)),
        foreign=int(reported.get("foreign_bytes", 0)),
        reserved_percent=row.reserved_percent,
        ratio=row.max_over_subscription if row.thin else 1.0,
        told=shared(reported, thin=bool(row.thin), thick=thick),
        refusal=_refusal(row),
        cluster=row.cluster_name,
        calculation=calculation,
        away=bool(row.enabled and not row.disabled and not (row.reachable and row.present)),
    )


def _refusal(row: Row[Any]) -> str | None:
    if not row.enabled or row.disabled:
        return f"is disabled ({row.disabled_reason or 'no reason given'})"
    if not row.reachable or not row.present:
        return "can not be reached"
    return None


def _gib(size: int) -> str:
    return f"{size / GIB:.0f} GiB" if size >= GIB else f"{size >> 20} MiB"
