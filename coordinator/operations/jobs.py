"""The conversation with a host about one job: post it, follow it, cancel it; whatever the wire does meanwhile.

A job's key makes each call repeatable, so every failure of the wire is answered by asking again once the host can be
reached. Only `Undelivered` on the first post of a key proves that the host knows nothing of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.base.errors import BrickyardError, NotFound, Temporary, from_body
from agent.base.log import get_logger
from agent.wire.client import AgentClient
from agent.wire.errors import OutcomeUnknown, Undelivered
from agent.wire.jobs import JobStatus, request_for
from coordinator.operations.errors import Cancelled, UnknownHost, WaitedTooLong
from coordinator.operations.slots import Slot
from coordinator.operations.workflow import JobCall
from coordinator.state.operations import Operation

log = get_logger(__name__)
POST_WAIT_S = 0.5
FOLLOW_WAIT_S = 30.0
AWAY_DEADLINE_S = 24 * 3600.0
MEMBER_LEASE_S = 30.0
# A job begins at most one lease after it was sent, and goes on for at most one unheard; the rest is for clocks.
_FENCED_AFTER = 2.5


class Agents(Protocol):
    """Who can be reached, kept by the fleet."""

    def client(self, host_id: str) -> AgentClient | None: ...
    def lost(self, host_id: str) -> None: ...
    def look(self, host_id: str) -> None: ...
    async def reachable(self, host_id: str, timeout: float) -> bool: ...


class Listener(Protocol):
    """What the engine wants to hear while a job runs."""

    def progress(self, operation_id: str, progress: Mapping[str, Any]) -> None: ...
    async def waiting(self, operation: Operation, reason: str | None) -> None: ...


class NotDelivered(Temporary):
    """The job was provably never delivered, and its step may be done elsewhere."""

    code = "operation.not-delivered"
    sentence = "Host {host} could not be reached; it has not got the job."


class MemberLost(Temporary):
    """A host of a cluster was not heard for so long that it has given up its jobs by itself."""

    code = "operation.member-lost"
    sentence = "Host {host} was not heard for {seconds} s; another one of its cluster may do its work."


@dataclass(slots=True)
class Conversation:
    """All talk of one operation with its hosts. `cancelled` is set when its requester wants it to end."""

    agents: Agents
    listener: Listener
    cancelled: asyncio.Event
    slot: Slot
    away_deadline_s: float = AWAY_DEADLINE_S
    member_lease_s: float = MEMBER_LEASE_S
    _stopped: str = field(default="", init=False)
    """The job whose host has heard that it is to stop: from then on its end is waited for."""

    async def run(self, operation: Operation, key: str, call: JobCall, *, may_move: bool) -> dict[str, Any] | None:
        """Do one job to its end and return its result; raises the error that the host reported.

        With `may_move`, a job that was provably not delivered raises NotDelivered instead of waiting. One on a back
        end that hosts share raises MemberLost when its host must have given it up.
        """
        lease_s = self.member_lease_s if call.shared else None
        fresh = may_move
        status: JobStatus | None = None
        while True:
            client = self._client(call.host_id)
            try:
                status = await self._step(client, key, call, status, operation)
            except Undelivered as error:
                if fresh:
                    self.agents.lost(call.host_id)
                    raise NotDelivered(host=call.host_id) from error
                await self._until_reachable(operation, call.host_id, lease_s)
                continue
            except OutcomeUnknown:
                fresh = False
                status = None
                await self._until_reachable(operation, call.host_id, lease_s)
                continue
            except NotFound:
                if status is None:
                    raise
                status = None
                continue
            fresh = False
            if status.terminal:
                return _outcome(status)

    async def tombstone(self, operation: Operation, host_id: str, key: str, *, shared: bool = False) -> JobStatus:
        """Make sure that a job of unknown outcome does nothing any more: cancelled if it runs, refused if it comes.

        Returns how it ended; it may have been done before.
        """
        lease_s = self.member_lease_s if shared else None

        async def cancel(client: AgentClient) -> JobStatus:
            return await client.cancel(key, operation.epoch)

        async def follow(client: AgentClient) -> JobStatus:
            return await client.get_job(key, FOLLOW_WAIT_S, status.seq)

        status = await self._patiently(operation, host_id, cancel, lease_s)
        while not status.terminal:
            status = await self._patiently(operation, host_id, follow, lease_s)
        return status

    async def _step(
        self, client: AgentClient, key: str, call: JobCall, status: JobStatus | None, operation: Operation
    ) -> JobStatus:
        lease_s = self.member_lease_s if call.shared else None
        if status is None or status.state == "needs-secret":
            secrets = {**call.secrets, **(await call.late() if call.late is not None else {})}
            request = request_for(key, operation.epoch, call.args, secrets, operation.request_id)
            if lease_s is not None:
                request = request.model_copy(update={"lease_s": lease_s, "sent_at": time.time()})
            self._stopped = ""
            fresh = await client.post_job(request, POST_WAIT_S)
        else:
            fresh = await self._follow(client, status, operation, FOLLOW_WAIT_S if lease_s is None else lease_s / 3)
        if fresh.progress is not None:
            self.listener.progress(operation.id, fresh.progress.model_dump(mode="json"))
        return fresh

    async def _follow(self, client: AgentClient, status: JobStatus, operation: Operation, wait_s: float) -> JobStatus:
        if operation.state != "running" or self._stopped == status.key:
            async with self.slot.given_up():
                return await client.get_job(status.key, wait_s, status.seq)
        follow = asyncio.ensure_future(client.get_job(status.key, wait_s, status.seq))
        stop = asyncio.ensure_future(self.cancelled.wait())
        try:
            async with self.slot.given_up():
                await asyncio.wait({follow, stop}, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                told = await client.cancel(status.key, operation.epoch)
                self._stopped = status.key
                return told
            return await follow
        finally:
            stop.cancel()
            if not follow.done():
                follow.cancel()

    async def _patiently(
        self, operation: Operation, host_id: str, ask: Callable[[AgentClient], Awaitable[JobStatus]],
        lease_s: float | None,
    ) -> JobStatus:  # fmt: skip
        while True:
            try:
                return await ask(self._client(host_id))
            except (Undelivered, OutcomeUnknown):
                await self._until_reachable(operation, host_id, lease_s)

    def _client(self, host_id: str) -> AgentClient:
        client = self.agents.client(host_id)
        if client is None:
            raise UnknownHost(host=host_id)
        return client

    async def _until_reachable(self, operation: Operation, host_id: str, lease_s: float | None) -> None:
        self.agents.lost(host_id)
        log.info("waiting for host", host=host_id, operation=operation.id)
        started = time.monotonic()
        if await self.agents.reachable(host_id, 1.0):
            return
        await self.listener.waiting(operation, f"outcome_unknown: host {host_id} can not be reached")
        limit_s = self.away_deadline_s if lease_s is None else lease_s * _FENCED_AFTER
        async with self.slot.given_up():
            back = await self.agents.reachable(host_id, limit_s)
        if self.agents.client(host_id) is None:
            raise UnknownHost(host=host_id)
        if not back and lease_s is not None:
            raise MemberLost(host=host_id, seconds=int(time.monotonic() - started))
        if not back:
            raise WaitedTooLong(host=host_id, seconds=int(time.monotonic() - started))
        await self.listener.waiting(operation, None)


def _outcome(status: JobStatus) -> dict[str, Any] | None:
    if status.state == "done":
        return status.result
    if status.state == "cancelled":
        raise Cancelled
    if status.error is not None:
        raise from_body(status.error.model_dump())
    raise BrickyardError(reason=f"job {status.key} ended as {status.state} without saying why")
