"""Giving up hosts that do not come back: what that means, the act itself, and the record of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from sqlalchemy import Connection

from agent.base.errors import BrickyardError
from coordinator.api.acting import requester
from coordinator.api.brickyard.pages import PAGING, asked, next_marker, picked
from coordinator.api.call import Call
from coordinator.api.fields import Answer, Body, Boolean, Time
from coordinator.api.route import Resource, get, post
from coordinator.fleet.poller import Poller
from coordinator.operations import evict_host
from coordinator.operations.engine import Engine
from coordinator.operations.evict_host import Evidence, Part
from coordinator.state import enrolment, evictions
from coordinator.state.operations import Operation

_ANSWERS_S = 3.0
_NAMED = 100
_FIELDS = ("id", "host_id", "user_id", "request_id", "evidence", "words", "counts", "at", "returned_at", "cleared_at",
           "taken")  # fmt: skip


class EvictBody(Body):
    """`dry_run` only shows what it means. `proof` and `words` say why the host can not write any more."""

    dry_run: Boolean = True
    proof: Literal["fence", "operator"] | None = None
    words: Annotated[str | None, Field(min_length=1, max_length=2000)] = None

    @model_validator(mode="after")
    def _both(self) -> EvictBody:
        if (self.proof is None) != (self.words is None):
            raise ValueError("proof and words belong together")
        return self


class PartAnswer(Answer):
    """`ids` names the first hundred of `count`."""

    what: str
    fate: str
    count: int
    ids: list[str]


class EvictionAnswer(Answer):
    """`answers`: the host was asked just now. `operations` end what it had attached."""

    host_id: str
    dry_run: bool
    answers: bool
    evidence_needed: bool
    parts: list[PartAnswer]
    operations: list[str]


class EvictedAnswer(Answer):
    id: str
    host_id: str
    user_id: str
    request_id: str
    evidence: str | None
    words: str | None
    counts: dict[str, int]
    at: Time
    returned_at: Time | None
    cleared_at: Time | None
    taken: dict[str, int] | None


class EvictedList(Answer):
    evictions: list[EvictedAnswer]
    next_marker: str | None


async def evict(call: Call) -> dict[str, Any]:
    """Asks the host whether it answers, shows what depends on it; without `dry_run` gives it up."""
    host_id, wanted = call.params["host_id"], call.valid(EvictBody)
    found = await call.services.db.read(lambda conn: evict_host.look(conn, host_id))
    answers = await _answers(call, host_id)
    begun: list[Operation] = []
    if not wanted.dry_run:
        found, begun = await _given_up(call, host_id, wanted, answers)
    enrolled = await call.services.db.read(lambda conn: enrolment.host(conn, host_id)) is not None
    return {
        "host_id": host_id,
        "dry_run": wanted.dry_run,
        "answers": answers,
        "evidence_needed": enrolled and bool(found),
        "parts": [_part(part) for part in found],
        "operations": [operation.id for operation in begun],
    }


async def _given_up(call: Call, host_id: str, wanted: EvictBody, answers: bool) -> tuple[list[Part], list[Operation]]:
    evidence = Evidence(wanted.proof, wanted.words) if wanted.proof and wanted.words else None
    who, engine = requester(call, ""), call.services.get(Engine)

    def act(conn: Connection) -> tuple[list[Part], list[Operation]]:
        return evict_host.evict(conn, who, host_id, evidence, answers=answers)

    found, begun = await call.services.db.write(act)
    for operation in begun:
        engine.start(operation)
    poller = call.services.find(Poller)
    if poller is not None:
        await poller.enrolled()
    return found, begun


async def _answers(call: Call, host_id: str) -> bool:
    client = call.services.get(Engine).agents.client(host_id)
    if client is None:
        return False
    try:
        await client.host(timeout=_ANSWERS_S)
    except (BrickyardError, TimeoutError):
        return False
    return True


def _part(part: Part) -> dict[str, Any]:
    return {"what": part.what, "fate": part.fate, "count": len(part.ids), "ids": list(part.ids[:_NAMED])}


async def listed(call: Call) -> dict[str, Any]:
    page = asked(call, evictions.NEWEST_FIRST)
    rows = await call.services.db.read(lambda conn: evictions.page(conn, page))
    return {
        "evictions": [picked(row, *_FIELDS) for row in rows],
        "next_marker": next_marker([row.id for row in rows], page),
    }


def resource() -> Resource:
    """The routes."""
    return Resource(
        "evictions",
        "Hosts that are given up.",
        (
            post("/hosts/{host_id}/evict", evict, "brickyard:hosts:evict",
                 "Show what depends on a host; without dry_run, give the host up.", body=EvictBody,
                 answer=EvictionAnswer, answer_key="eviction"),
            get("/evictions", listed, "brickyard:hosts:get", "List hosts that were given up, newest first.",
                answer=EvictedList, query=PAGING),
        ),
        prefix="/brickyard/v1",
    )  # fmt: skip
