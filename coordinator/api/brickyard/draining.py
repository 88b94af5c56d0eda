"""Draining hosts: nothing is begun there any more; what is at work, waits, and depends on them is shown."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from coordinator.api.brickyard.operations import OperationAnswer, view
from coordinator.api.call import Call
from coordinator.api.fields import Answer, Body, Time
from coordinator.api.route import Resource, get, post
from coordinator.operations import drain_host

_NAMED = 100


class DrainBody(Body):
    reason: Annotated[str | None, Field(max_length=200)] = None


class LeftAnswer(Answer):
    """`ids` names the first hundred of `count`."""

    what: str
    means: str
    count: int
    ids: list[str]


class DrainAnswer(Answer):
    """`working` began on the host and has not ended, `waiting` begins when it is enabled again: a hundred of each.

    `quiet`: it is drained, and nothing is at work there. `drained_at` is null for a host that is not drained.
    """

    host_id: str
    drained_at: Time | None
    reason: str | None
    quiet: bool
    working: list[OperationAnswer]
    working_count: int
    waiting: list[OperationAnswer]
    waiting_count: int
    left: list[LeftAnswer]


async def show(call: Call) -> dict[str, Any]:
    host_id = call.params["host_id"]
    found = await call.services.db.read(lambda conn: drain_host.look(conn, host_id))
    return {
        "host_id": host_id,
        "drained_at": found.drained_at,
        "reason": found.reason,
        "quiet": found.is_quiet,
        "working": [view(call, each) for each in found.working[:_NAMED]],
        "working_count": len(found.working),
        "waiting": [view(call, each) for each in found.waiting[:_NAMED]],
        "waiting_count": len(found.waiting),
        "left": [
            {"what": left.what, "means": left.means, "count": len(left.ids), "ids": list(left.ids[:_NAMED])}
            for left in found.left
        ],
    }


async def drain(call: Call) -> dict[str, Any]:
    """Once more changes the reason alone."""
    host_id, reason = call.params["host_id"], call.valid(DrainBody).reason
    await call.services.db.write(lambda conn: drain_host.drain(conn, host_id, reason))
    return await show(call)


def resource() -> Resource:
    """The routes."""
    drained: dict[str, Any] = {"answer": DrainAnswer, "answer_key": "drain"}
    return Resource(
        "draining",
        "Hosts that are drained for maintenance.",
        (
            get("/{host_id}/drain", show, "brickyard:hosts:get",
                "Show what is at work on a host, waits for it and depends on it.", **drained),
            post("/{host_id}/drain", drain, "brickyard:hosts:update",
                 "Place and begin nothing there until the host is enabled again.", body=DrainBody, **drained),
        ),
        prefix="/brickyard/v1/hosts",
    )  # fmt: skip
