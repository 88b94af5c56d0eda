"""`GET /metrics`: Prometheus' text format, for administrators (a token or HTTP basic)."""

from __future__ import annotations

import asyncio

from aiohttp import web

from agent.base.metrics import registry
from coordinator.api.call import Call
from coordinator.api.route import Resource, get
from coordinator.state.gauges import Gauges, gauges

_SIZES = ("total", "free", "provisioned")
_STATES = ("running", "undoing")

seconds = registry.histogram(
    "brickyard_api_seconds", "How long calls took, by route and class of status.", route=400,
    status=("1xx", "2xx", "3xx", "4xx", "5xx"),
)  # fmt: skip
_operations = registry.gauge("brickyard_operations", "Operations under way.", kind=50, state=_STATES)
_oldest = registry.gauge(
    "brickyard_operation_oldest_seconds", "Age of the oldest operation under way.", kind=50, state=_STATES
)
_waiting = registry.gauge("brickyard_operations_waiting", "Operations that wait for something outside.", kind=50)
_hosts = registry.gauge("brickyard_hosts", "Enrolled hosts.", state=("reachable", "unreachable"))
_issues = registry.gauge("brickyard_issues", "Open issues.", code=100)
_issue_age = registry.gauge("brickyard_issue_oldest_seconds", "Age of the oldest open issue.", code=100)
_pools = registry.gauge("brickyard_pool_bytes", "Space of pools.", pool=1000, size=_SIZES)


def observe(label: str, status: int, took: float) -> None:
    """Note that a call was answered."""
    seconds.observe(took, route=label, status=f"{status // 100}xx")


def metrics() -> Resource:
    """For Prometheus."""
    return Resource(
        "metrics",
        "Numbers for watching.",
        (get("/metrics", _show, "brickyard:metrics:get", "Show all metrics in Prometheus' text format."),),
        prefix="",
    )


async def _show(call: Call) -> web.Response:
    _refresh(await call.services.db.read(gauges))
    body = await asyncio.to_thread(registry.render)
    return web.Response(body=body, headers={"Content-Type": registry.content_type})


def _refresh(found: Gauges) -> None:
    active = found.operations.items()
    _operations.replace([({"kind": kind, "state": state}, count) for (kind, state), (count, _) in active])
    _oldest.replace([({"kind": kind, "state": state}, age) for (kind, state), (_, age) in active])
    _waiting.replace([({"kind": kind}, count) for kind, count in found.waiting.items()])
    _hosts.replace([({"state": state}, count) for state, count in found.hosts.items()])
    _issues.replace([({"code": code}, count) for code, (count, _) in found.issues.items()])
    _issue_age.replace([({"code": code}, age) for code, (_, age) in found.issues.items()])
    sizes = [({"pool": pool, "size": size}, held[size]) for pool, held in found.pools.items() for size in _SIZES]
    _pools.replace([(labels, float(value)) for labels, value in sizes])
