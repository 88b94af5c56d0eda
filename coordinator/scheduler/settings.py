"""How volumes are placed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import Field, FiniteFloat, field_validator

from agent.base.config import Section
from coordinator.scheduler import plugins
from coordinator.scheduler.filters import FILTERS
from coordinator.scheduler.pool import Calculation
from coordinator.scheduler.weighers import WEIGHERS, counts


class SchedulerSettings(Section):
    """`[scheduler]`"""

    filters: tuple[str, ...] = Field(
        tuple(FILTERS),
        description="Rules that a pool must meet, by name: " + ", ".join(FILTERS) + "; and those that packages "
        "bring as entry points of `cinder.scheduler.filters`.",
    )
    weighers: tuple[str, ...] = Field(
        ("CapacityWeigher", "GoodnessWeigher"),
        description="What makes a pool better, by name: " + ", ".join(WEIGHERS) + "; and those that packages bring as "
        "entry points of `cinder.scheduler.weights`.",
    )
    multipliers: dict[str, FiniteFloat] = Field(
        default_factory=dict,
        description="How much each weigher counts, by its name; 1 by default, -1 for those where fewer is better, and "
        "what a package's own says.",
    )
    choice: Literal["best", "lottery"] = Field(
        "best", description="`best` takes the best pool; in a `lottery` a pool's chance is in proportion to its weight."
    )
    attempts: int = Field(
        3,
        ge=1,
        le=20,
        description="In how many pools a new volume is tried, one after the other, while hosts can not make what fits "
        "there by their figures.",
    )
    over_provisioning_calculation: Calculation = Field(
        "both",
        description="What decides whether a thin volume fits: `standard` looks at what was promised, "
        "(total - reserved) * ratio; `cinder` at the free space, (free - reserved) * ratio; `both` at both. The same "
        "on all coordinators.",
    )

    @field_validator("filters")
    @classmethod
    def _known_filters(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, FILTERS, "filter", plugins.FILTERS)

    @field_validator("weighers")
    @classmethod
    def _known_weighers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return _known(names, WEIGHERS, "weigher", plugins.WEIGHERS)

    @field_validator("multipliers")
    @classmethod
    def _known_multipliers(cls, given: dict[str, float]) -> dict[str, float]:
        _known(tuple(given), WEIGHERS, "weigher", plugins.WEIGHERS)
        return given

    def weights(self) -> dict[str, float]:
        """Each weigher that is used, with what it counts."""
        return {name: self.multipliers[name] if name in self.multipliers else counts(name) for name in self.weighers}


def _known(names: tuple[str, ...], known: Collection[str], noun: str, group: str) -> tuple[str, ...]:
    for name in names:
        if name not in known and plugins.installed(name, group) is None:
            raise ValueError(f"{noun} {name[:64]!r} is not known; there are {', '.join(known)}")
    return names
