"""What makes one fitting pool better than another, and how the choice is made.

Each weigher gives a raw figure; the figures of all candidates are spread over 0 to 1 and multiplied before they are
added, so that weighers with different units can be used together.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from agent.base.log import get_logger
from coordinator.scheduler import expression, filters, plugins
from coordinator.scheduler.errors import BadExpression
from coordinator.scheduler.pool import Pool
from coordinator.scheduler.request import Request

log = get_logger(__name__)
Weigher = Callable[[Pool, Request], float]


def capacity(pool: Pool, request: Request) -> float:
    return float(pool.spare(request.wants_thick))


def allocated_capacity(pool: Pool, request: Request) -> float:
    return float(pool.provisioned)


def volume_number(pool: Pool, request: Request) -> float:
    return float(pool.volumes)


def goodness(pool: Pool, request: Request) -> float:
    """0 to 100 by the back end's `goodness_function`; what is out of range or can not be evaluated counts as 0."""
    function = pool.capabilities.get("goodness_function")
    if not function:
        return 0.0
    try:
        return max(_goodness(expression.evaluate(str(function), each)) for each in filters.scopes(pool, request))
    except BadExpression as error:
        _warn(pool.id, str(error))
        return 0.0


def _goodness(value: expression.Value) -> float:
    if isinstance(value, bool):
        return 100.0 if value else 0.0
    return float(value) if not isinstance(value, str) and 0 <= value <= 100 else 0.0


@lru_cache(maxsize=1024)
def _warn(pool_id: str, reason: str) -> None:
    """Once for each."""
    log.warning("a goodness_function counts as 0", pool=pool_id, reason=reason)


def chance(pool: Pool, request: Request) -> float:
    return random.random()  # noqa: S311 - spreading, not secrecy


WEIGHERS: dict[str, Weigher] = {
    "CapacityWeigher": capacity,
    "AllocatedCapacityWeigher": allocated_capacity,
    "VolumeNumberWeigher": volume_number,
    "GoodnessWeigher": goodness,
    "ChanceWeigher": chance,
}
"""By the names that operators know from Cinder."""

MULTIPLIERS = {"AllocatedCapacityWeigher": -1.0, "VolumeNumberWeigher": -1.0}
"""Those that are not 1: fewer is better."""


def named(name: str) -> Weigher:
    """One of ours, or of an installed package; raises BadPlugin."""
    return WEIGHERS.get(name) or plugins.weigher(name)[0]


def counts(name: str) -> float:
    """How much it does where nobody says."""
    return MULTIPLIERS.get(name, 1.0) if name in WEIGHERS else plugins.weigher(name)[1]


def ordered(candidates: Sequence[Pool], request: Request, weighers: Mapping[str, float]) -> list[Pool]:
    """Best first. `weighers` are names and multipliers."""
    totals = _totals(candidates, request, weighers)
    places = sorted(range(len(candidates)), key=lambda place: (-totals[place], candidates[place].id))
    return [candidates[place] for place in places]


def drawn(
    candidates: Sequence[Pool], request: Request, weighers: Mapping[str, float], dice: random.Random
) -> list[Pool]:
    """A lottery in which a pool's chance is in proportion to its weight; all are in the list, the winner first.

    Raw figures count here, as spreading them would distort the chances. Below zero they are turned around, so that a
    negative multiplier still means "fewer is better".
    """
    weights = [0.0] * len(candidates)
    for name, multiplier in weighers.items():
        weigh = named(name)
        raw = [max(weigh(pool, request), 0.0) for pool in candidates]
        top = max(raw, default=0.0)
        for place, figure in enumerate(raw):
            weights[place] += multiplier * figure if multiplier >= 0 else -multiplier * (top - figure)
    # Each in its order after a time that is the shorter the more it weighs: as if one after the other were drawn.
    places = [
        (weight <= 0, dice.expovariate(weight) if weight > 0 else dice.random(), place)
        for place, weight in enumerate(weights)
    ]
    return [candidates[place] for _, _, place in sorted(places)]


def _totals(candidates: Sequence[Pool], request: Request, weighers: Mapping[str, float]) -> list[float]:
    totals = [0.0] * len(candidates)
    for name, multiplier in weighers.items():
        weigh = named(name)
        raw = [weigh(pool, request) for pool in candidates]
        low, high = min(raw, default=0.0), max(raw, default=0.0)
        if high > low:
            for place, figure in enumerate(raw):
                totals[place] += multiplier * (figure - low) / (high - low)
    return totals
