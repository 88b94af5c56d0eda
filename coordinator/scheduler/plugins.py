"""Filters of an operator's own: the classes that Cinder's scheduler would load, by name from the same entry points.

Such a class has `backend_passes(backend_state, filter_properties)` and is made once. It is shown a pool and a request
by Cinder's names; what it does to them is lost. One that raises refuses: nobody knows what it would have said.
"""

from __future__ import annotations

from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from agent.base.log import get_logger
from coordinator.scheduler.errors import BadPlugin
from coordinator.scheduler.pool import GIB, Pool

if TYPE_CHECKING:
    from coordinator.scheduler.filters import Rule
    from coordinator.scheduler.request import Request

GROUP = "cinder.scheduler.filters"
log = get_logger(__name__)


def installed(name: str) -> metadata.EntryPoint | None:
    """The entry point of that name, whatever package brings it."""
    return next(iter(metadata.entry_points(group=GROUP, name=name)), None)


def rule(name: str) -> Rule:
    """The installed filter of that name; raises BadPlugin."""
    point = installed(name)
    if point is None:
        raise BadPlugin(name=name, package="(none)", reason="no package has it")
    package = point.dist.name if point.dist is not None else point.module
    try:
        passes = point.load()().backend_passes
    except Exception as error:
        raise BadPlugin(name=name, package=package, reason=f"{type(error).__name__}: {error}") from error

    def ask(pool: Pool, request: Request) -> str | None:
        try:
            return None if passes(_state(pool), _properties(request)) else "refuses by a filter of the operator"
        except Exception as error:
            log.exception("a filter failed, and so refuses", filter=name, pool=pool.id)
            return f"can not be asked: the filter raised {type(error).__name__}"

    return ask


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
