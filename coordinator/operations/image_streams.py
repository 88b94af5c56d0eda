"""Users' own bytes on their way to and from an image store: the part of an operation that only this process can do.

A handler offers a transfer under a random name and accepts an operation that names it; the operation opens a ticket
on the store's data port and then runs the transfer in its wait step. After a takeover nobody has the name: the step
fails and the operation undoes what it did.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from agent.base.errors import Permanent, Temporary, from_body
from agent.base.ids import new_id
from agent.wire.errors import TicketUnknown
from agent.wire.jobs import Progress, TransferRef
from agent.wire.tls import TlsIdentity
from coordinator.operations.engine import Engine
from coordinator.operations.errors import StillRunning, UnknownHost
from coordinator.operations.workflow import Result
from coordinator.state import enrolment
from coordinator.state.database import Database
from coordinator.state.operations import Operation

MAX_STREAMS = 16
OPEN_S = 30.0
Ticket = TransferRef
Transfer = Callable[[Ticket, Operation], Awaitable[Result]]


class StreamLost(Permanent):
    code = "images.stream-lost"
    status = 503
    sentence = "The connection that carried the image's data is gone."
    hint = "Send or fetch the data again."


class StreamBroken(Permanent):
    code = "images.stream-broken"
    sentence = "The image's data stopped: {reason}."
    hint = "Send or fetch the data again."


class StoreSilent(Temporary):
    code = "images.store-silent"
    retry_after = 10.0
    sentence = "Host {host}, which keeps the image, does not answer."
    hint = "Try again when it is back; see: brickyard host show {host}."


class TooManyStreams(Temporary):
    code = "images.too-many-streams"
    retry_after = 10.0
    sentence = "This coordinator carries {limit} uploads and downloads{whose} already."
    hint = "Try again when one of them has ended."


@dataclass(slots=True)
class Stream:
    """One offered transfer. `started` is set when its bytes may flow."""

    name: str
    transfer: Transfer
    open_s: float
    project_id: str | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    task: asyncio.Future[Result] | None = None

    def end(self) -> None:
        self.ended = True
        if self.task is not None:
            self.task.cancel()


class ImageStreams:
    """All transfers that this process carries; use from one event loop. `open_s` is how long a store may be silent."""

    def __init__(
        self, db: Database, identity: TlsIdentity, *, limit: int = MAX_STREAMS, open_s: float = OPEN_S
    ) -> None:
        self._db = db
        self._open_s = open_s
        self._identity = identity
        self._limit = limit
        self._streams: dict[str, Stream] = {}

    @contextmanager
    def offer(self, transfer: Transfer, project_id: str | None = None) -> Iterator[Stream]:
        """Offer a transfer for as long as the block lasts; leaving it ends a running one. Raises TooManyStreams.

        One project gets three quarters of the places at most: slow ones can last for days.
        """
        if len(self._streams) >= self._limit:
            raise TooManyStreams(limit=self._limit, whose="")
        own = sum(project_id is not None and each.project_id == project_id for each in self._streams.values())
        if own >= (most := max(1, self._limit - self._limit // 4)):
            raise TooManyStreams(limit=most, whose=" of your project")
        stream = Stream(new_id(), transfer, self._open_s, project_id)
        self._streams[stream.name] = stream
        try:
            yield stream
        finally:
            del self._streams[stream.name]
            stream.end()

    async def carry(self, operation: Operation) -> Result | None:
        """The wait step: run the offered transfer to its end; raises StreamLost, StreamBroken, or what it raises."""
        stream = self._streams.get(operation.args["stream"])
        if stream is None:
            raise StreamLost
        ref = await self._db.read(lambda conn: _ref(conn, operation))
        if stream.ended or (stream.task is not None and stream.task.cancelled()):
            raise StreamLost
        if stream.task is None:  # Else it is taken up again, the database was away: the bytes flow only once.
            stream.task = asyncio.ensure_future(stream.transfer(ref, operation))
            stream.started.set()
        try:
            return await stream.task
        except asyncio.CancelledError:
            if stream.ended:
                raise StreamLost from None
            raise
        except TicketUnknown as error:
            # The store was started anew in between; to the user the image itself is not missing.
            raise StreamLost from error
        except (OSError, TimeoutError) as error:
            raise StreamBroken(reason=str(error) or type(error).__name__) from error

    async def push(
        self, ref: TransferRef, blocks: AsyncIterator[bytes], tell: Callable[[int], None] | None = None
    ) -> int:
        """Write a stream to the store; returns its size in bytes when all of it is synced there."""
        from agent.wire import transfer

        progress = (lambda done, _total: tell(done)) if tell is not None else None
        return await transfer.push(ref, self._identity, blocks, progress=progress)

    async def pull(self, ref: TransferRef, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes `start` to `stop` of an image in the store, in blocks of up to 1 MiB."""
        from agent.wire.transfer import RemoteReader

        async with RemoteReader(ref, self._identity) as reader:
            async for block in reader.blocks(start):
                part = block[: stop - start]
                start += len(part)
                yield part
                if start >= stop:
                    return


async def finish(engine: Engine, operation: Operation, stream: Stream, timeout: float | None = None) -> Operation:
    """Wait for the end of an operation that carries `stream`: at most `timeout` seconds once the bytes are through.

    Without a timeout as long as it takes: hashing a large image takes minutes, and the client knows only its answer.

    Raises what made it fail, StoreSilent when the store did not answer in time, StillRunning.
    """
    ended = asyncio.ensure_future(_ended(engine, operation))
    started = asyncio.ensure_future(stream.started.wait())
    try:
        first: set[asyncio.Future[Any]] = {ended, started}
        await asyncio.wait(first, timeout=stream.open_s, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done() and not started.done():
            raise StoreSilent(host=operation.args["host_id"])
        if stream.task is not None:
            both: set[asyncio.Future[Any]] = {ended, stream.task}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({ended}, timeout=timeout)
        if not ended.done():
            raise StillRunning(operation=operation.id, seconds=int(timeout or 0))
        last = ended.result()
    finally:
        started.cancel()
        ended.cancel()
    if last.state != "done":
        raise from_body(last.error or {})
    return last


async def _ended(engine: Engine, operation: Operation) -> Operation:
    while True:
        ended = await engine.wait(operation.id, 3600.0)
        if ended is not None:
            return ended


def told(phase: str, done: int, total: int | None, seconds: float) -> dict[str, Any]:
    """Progress of a transfer in the form that jobs report theirs."""
    rate = done / seconds if seconds > 0 else 0.0
    left = (total - done) / rate if total and rate else None
    return Progress(phase=phase, done=done, total=total or 0, rate=rate, eta_s=left).model_dump(mode="json")


def _ref(conn: Connection, operation: Operation) -> TransferRef:
    opened = operation.results["open"]
    host = enrolment.host(conn, operation.args["host_id"])
    if host is None:
        raise UnknownHost(host=operation.args["host_id"])
    return TransferRef(host=host.name, address=host.address, port=opened["port"], name=opened["name"])
