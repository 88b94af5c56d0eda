"""Filters and weighers of an operator's own: classes that Cinder's scheduler would load, from the same entry points.

A filter has `backend_passes(backend_state, filter_properties)`, a weigher `_weigh_object(backend_state,
weight_properties)` and, if it likes, `weight_multiplier()`. Each is made once, is shown a pool and a request by
Cinder's names, and what it does to them is lost. A filter that raises refuses: nobody knows what it would have said; of
a weigher the pool then counts as 0. One that hangs counts as one that raised (`patience`).
"""

from __future__ import annotations

import math
from functools import cache
from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from agent.base.log import get_logger
from coordinator.scheduler.errors import BadPlugin
from coordinator.scheduler.patience import Hangs, Patience
from coordinator.scheduler.pool import GIB, Pool

if TYPE_CHECKING:
    from coordinator.scheduler.filters import Rule
    from coordinator.scheduler.request import Request
    from coordinator.scheduler.weighers import Weigher

FILTERS, WEIGHERS = "cinder.scheduler.filters", "cinder.scheduler.weights"
_METHODS = {FILTERS: "backend_passes", WEIGHERS: "_weigh_object"}
_NOUNS = {FILTERS: "filter", WEIGHERS: "weigher"}
log = get_logger(__name__)


def installed(name: str, group: str = FILTERS) -> metadata.EntryPoint | None:
    """The entry point of that name, whatever package brings it."""
    return next(iter(metadata.entry_points(group=group, name=name)), None)


def _made(name: str, group: str) -> Any:
    """An object of the installed class of that name; raises BadPlugin."""
    noun, point = _NOUNS[group], installed(name, group)
    if point is None:
        raise BadPlugin(noun=noun, name=name, package="(none)", reason="no package has it")
    package = point.dist.name if point.dist is not None else point.module
    try:
        made = point.load()()
        getattr(made, _METHODS[group])
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise BadPlugin(noun=noun, name=name, package=package, reason=reason) from error
    return made


def rule(name: str) -> Rule:
    """The installed filter of that name; raises BadPlugin."""
    passes, patience = _made(name, FILTERS).backend_passes, Patience(name)

    def ask(pool: Pool, request: Request) -> str | None:
        try:
            allowed = patience.ask(request, lambda: bool(passes(_state(pool), _properties(request))))
            return None if allowed else "refuses by a filter of the operator"
        except Hangs as error:
            log.error("a filter hangs, and so refuses", filter=name, pool=pool.id)
            return f"can not be asked: {error}"
        except Exception as error:
            log.exception("a filter failed, and so refuses", filter=name, pool=pool.id)
            return f"can not be asked: the filter raised {type(error).__name__}"

    return ask


@cache
def weigher(name: str) -> tuple[Weigher, float]:
    """The installed weigher of that name, and how much it says itself that it counts; raises BadPlugin."""
    made = _made(name, WEIGHERS)
    try:
        counts = float(made.weight_multiplier()) if hasattr(made, "weight_multiplier") else 1.0
    except Exception as error:
        reason = f"weight_multiplier: {type(error).__name__}: {error}"
        raise BadPlugin(noun="weigher", name=name, package=type(made).__module__, reason=reason) from error
    if not math.isfinite(counts):
        raise BadPlugin(noun="weigher", name=name, package=type(made).__module__, reason=f"it counts {counts}")

    patience = Patience(name)

    def ask(pool: Pool, request: Request) -> float:
        try:
            weighed = patience.ask(request, lambda: float(made._weigh_object(_state(pool), _properties(request))))
            figure = float(weighed)
        except Hangs as error:
            log.error("a weigher hangs, and the pool counts as 0", weigher=name, pool=pool.id, reason=str(error))
            return 0.0
        except Exception:
            log.exception("a weigher failed, and the pool counts as 0", weigher=name, pool=pool.id)
            return 0.0
        return figure if math.isfinite(figure) else 0.0

    return ask, counts


def _state(pool: Pool) -> SimpleNamespace:
    told = pool.capabilities
    named = {key: value for key, value in told.items() if key.isidentifier()}
    service = {"host": f"{pool.host_id}@{pool.backend}", "availability_zone": pool.availability_zone, "disabled": False}
    return SimpleNamespace(
        **named
        | {"host": pool.id, "backend_id": pool.id, "cluster_name": pool.cluster, "capabilities": told}
        | {"service": service, "pools": {}, "updated": None}
    )


def _properties(request: Request) -> dict[str, Any]:
    """`size` is what is asked for now, in GiB; `volume_properties` tell of the volume as it will be."""
    size = -(-request.device_bytes // GIB)
    kind = {"extra_specs": dict(request.extra_specs), "qos_specs": dict(request.qos)}
    volume = {"size": size, "availability_zone": request.availability_zone, **request.volume}
    return {
        "request_spec": {"operation": request.purpose, "volume_properties": volume, "volume_type": kind},
        "operation": request.purpose,
        "size": size,
        "volume_type": kind,
        "resource_type": kind,
        "qos_specs": dict(request.qos),
        "availability_zone": request.availability_zone,
        "scheduler_hints": {},
        "context": None,
    }
