"""What a poll is answered with: only what the caller does not have yet, told apart by digests (ARCHITECTURE §5)."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from agent.jobs import records
from agent.wire.results import Report

if TYPE_CHECKING:
    from agent.server.views import Views

log = get_logger(__name__)
_PATIENCE_S = 5.0


class Reporter:
    """`have` is opaque to the caller: digests of facts and pools, as they were told last."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._digesting: asyncio.Task[str] | None = None

    async def report(self, have: str) -> Report:
        known = have.split(".") if have.count(".") == 1 else ["", ""]
        facts, pools = await self._views.host(), await self._views.pools()
        told = (
            _digest(facts.model_dump(mode="json", exclude={"clock"})),
            _digest([pool.model_dump(mode="json") for pool in pools]),
        )
        finished = await self._views.services.journal.read(records.ended)
        return Report(
            clock=time.time(),
            have=".".join(told),
            host=facts if told[0] != known[0] else None,
            pools=tuple(pools) if told[1] != known[1] else None,
            held=await self._held(),
            finished=tuple(finished),
        )

    async def _held(self) -> str:
        """A back end that is slow or out of order must not keep the host from answering; one look at a time."""
        if self._digesting is None or self._digesting.done():
            self._digesting = asyncio.create_task(self._digest_of_held())
        done, _ = await asyncio.wait({self._digesting}, timeout=_PATIENCE_S)
        return self._digesting.result() if done else ""

    async def _digest_of_held(self) -> str:
        try:
            inventory, away = await self._views.inventory()
            attached, exported = await self._views.attachments(), await self._views.exports()
        except BrickyardError as error:
            log.info("what the host holds can not be told", code=error.code, reason=str(error))
            return ""
        except Exception:
            log.exception("telling what the host holds met a defect")
            return ""
        # How much of a volume is written changes all the time, and is no matter of comparison.
        held = [item.model_dump(mode="json", exclude={"allocated_bytes"}) for item in inventory]
        held.sort(key=lambda item: (item["kind"], item["backend"], item["id"]))
        told = [row.model_dump(mode="json") for row in (*attached, *exported)]
        troubles = [(one.code, one.resource, one.message) for one in self._views.troubles()]
        return _digest([held, sorted(away), told, troubles])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]
