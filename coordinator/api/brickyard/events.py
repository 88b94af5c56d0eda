"""Events: what happened, in an order that never skips one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row

from coordinator.api.brickyard.pages import whole
from coordinator.api.call import Call
from coordinator.api.fields import Answer, Time
from coordinator.api.paging import flag
from coordinator.api.route import Resource, get
from coordinator.state import events
from coordinator.state.tables.events import events as table

_FIELDS = ("at", "type", "resource_type", "resource_id", "project_id", "request_id", "payload")
_LOOK_S = 5.0
_LONGEST_S = 30
_SLOWER_S, _SLOWEST_S = 0.1, 0.5


class EventAnswer(Answer):
    """`payload` has the resource as it was then, under the name of its kind."""

    seq: int
    at: Time
    type: str
    resource_type: str
    resource_id: str
    project_id: str
    request_id: str
    payload: dict[str, Any]


class EventList(Answer):
    """`next_after` is what to give as `after` the next time; `missed`: some after `after` were dropped as old."""

    events: list[EventAnswer]
    next_after: int
    missed: bool


def view(row: Row[Any]) -> dict[str, Any]:
    return {"seq": row.position, **{name: getattr(row, name) for name in _FIELDS}}


async def listed(call: Call) -> dict[str, Any]:
    """With `wait` the answer comes with the first event, or after so many seconds."""
    after = whole(call, "after", 0, 1 << 60)
    limit = max(1, whole(call, "limit", call.services.settings.max_limit, call.services.settings.max_limit))
    deadline = time.monotonic() + min(whole(call, "wait", 0, 1 << 30), _LONGEST_S)
    everywhere = flag(call, "all_projects") or not call.context.project_id
    if everywhere:
        call.require("brickyard:events:get_all")
    project = None if everywhere else call.context.project_id
    where: list[ColumnElement[bool]] = [
        table.c[name] == call.query[name] for name in ("type", "resource_type", "resource_id") if call.query.get(name)
    ]
    bell, pause_s = call.services.db.new_events, 0.0
    while True:
        rung = bell.count
        rows, seen, missed = await _page(call, after, project, limit, where)
        if rows or time.monotonic() >= deadline:
            return {
                "events": [view(row) for row in rows],
                "next_after": rows[-1].position if rows else max(after, seen),
                "missed": missed,
            }
        if await bell.after(rung, max(0.0, min(_LOOK_S, deadline - time.monotonic()))):
            # Events of others wake everybody who waits: on a busy site each of them looks twice a second at most.
            await asyncio.sleep(max(0.0, min(pause_s, deadline - time.monotonic())))
            pause_s = min(_SLOWEST_S, pause_s + _SLOWER_S)


async def _page(
    call: Call, after: int, project: str | None, limit: int, where: list[ColumnElement[bool]]
) -> tuple[Sequence[Row[Any]], int, bool]:
    """A page, up to which position there can be none but these, and whether some before it are gone."""
    await events.numbered(call.services.db)
    return await call.services.db.read(
        lambda conn: (events.after(conn, after, project, limit, where), events.last(conn), events.missed(conn, after))
    )


def resource() -> Resource:
    """The routes."""
    return Resource(
        "events",
        "Events.",
        (
            get("/events", listed, "brickyard:events:get", "Events after a number, the oldest first.",
                answer=EventList,
                query=("after", "limit", "wait", "type", "resource_type", "resource_id", "all_projects")),
        ),
        prefix="/brickyard/v1",
    )  # fmt: skip
