"""Forgetting volumes whose storage is gone for good."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection

from coordinator.api.acting import requester
from coordinator.api.call import Call
from coordinator.api.fields import Answer, Body, Boolean
from coordinator.api.route import Resource, post
from coordinator.keys.store import KeyStore
from coordinator.operations import forget_volume
from coordinator.operations.evict_host import Part
from coordinator.state import volumes

_RULE = "brickyard:volumes:forget"


class ForgetBody(Body):
    """`dry_run` only shows what it means. `words` say why the data are gone; they are kept."""

    dry_run: Boolean = True
    force: Boolean = False
    words: Annotated[str | None, Field(min_length=1, max_length=2000)] = None


class ForgottenPart(Answer):
    what: str
    fate: str
    count: int
    ids: list[str]


class ForgottenAnswer(Answer):
    volume_id: str
    dry_run: bool
    parts: list[ForgottenPart]


async def forget(call: Call) -> dict[str, Any]:
    """No host is asked for anything."""
    body, keys = call.valid(ForgetBody), call.services.get(KeyStore)

    def look(conn: Connection) -> list[Part]:
        return forget_volume.look(conn, volumes.get(conn, call.params["volume_id"]))

    def change(conn: Connection) -> list[Part]:
        row = volumes.get(conn, call.params["volume_id"])
        return forget_volume.forget(conn, requester(call, row.project_id), keys, row, body.words, force=body.force)

    parts = await (call.services.db.read(look) if body.dry_run else call.services.db.write(change))
    told = [{"what": part.what, "fate": part.fate, "count": len(part.ids), "ids": list(part.ids)} for part in parts]
    return {"volume_id": call.params["volume_id"], "dry_run": body.dry_run, "parts": told}


def resource() -> Resource:
    """The route."""
    return Resource(
        "forgetting",
        "Forgetting volumes whose storage is gone for good.",
        (
            post("/volumes/{volume_id}/forget", forget, _RULE,
                 "End the rows of a volume, its snapshots and attachments; shows what that means unless told to do it.",
                 body=ForgetBody, answer=ForgottenAnswer, answer_key="forgotten"),
        ),
        prefix="/brickyard/v1",
    )  # fmt: skip
