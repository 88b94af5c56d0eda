"""Making the whole site read-only, and ending that."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from pydantic import Field

from coordinator.api.call import Call
from coordinator.api.fields import Answer, Body
from coordinator.api.read_only import FRESH_S
from coordinator.api.route import Resource, delete, get, put
from coordinator.state import site


class ReadOnlyBody(Body):
    reason: Annotated[str, Field(min_length=1, max_length=200)]


class ReadOnlyAnswer(Answer):
    """`since` (UTC) and `reason` are null while the site can be changed."""

    since: str | None
    reason: str | None


async def show(call: Call) -> dict[str, Any]:
    since, reason = await call.services.db.read(site.read_only) or (None, None)
    return {"since": since, "reason": reason}


async def begin(call: Call) -> dict[str, Any]:
    """When it answers, every coordinator of the site follows. Once more changes the reason alone."""
    reason = call.valid(ReadOnlyBody).reason
    await call.services.db.write(lambda conn: site.set_read_only(conn, reason))
    await asyncio.sleep(FRESH_S)
    return await show(call)


async def end(call: Call) -> None:
    """When it answers, every coordinator of the site follows."""
    await call.services.db.write(site.set_writable)
    await asyncio.sleep(FRESH_S)


def resource() -> Resource:
    """The routes."""
    one: dict[str, Any] = {"answer": ReadOnlyAnswer, "answer_key": "read_only"}
    return Resource(
        "read_only",
        "A site that is read-only for a while.",
        (
            get("", show, "brickyard:site:get", "Whether, since when and why the site is read-only.", **one),
            put("", begin, "brickyard:site:update", "Refuse all that changes something.", body=ReadOnlyBody, **one),
            delete("", end, "brickyard:site:update", "Let the site be changed again.", status=204),
        ),
        prefix="/brickyard/v1/read-only",
    )  # fmt: skip
