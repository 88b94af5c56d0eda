"""The client half of the data port: reading and writing another host's file by ticket, resuming by itself.

Progress is told as (done, total) in bytes, total None when it is not known. A broken connection is made again from the
last byte that counts; only `patience_s` without a single byte of progress ends it, with `TransferBroken`.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

import aiohttp

from agent.base.errors import Temporary, from_body
from agent.wire.errors import BadAnswer, PeerRefused, TicketBusy, TransferBroken, TransferMismatch
from agent.wire.jobs import TransferRef
from agent.wire.tls import TlsIdentity, host_role, server_name

BLOCK = 1 << 20
SEGMENT = 4 << 20
_SLICE = 256 << 10
PATIENCE_S = 60.0
STALL_S = 30.0
SYNC_S = 300.0
Progress = Callable[[int, int | None], None]
_RETRIED = (aiohttp.ClientError, OSError, Temporary)


class _Remote:
    """One connection to one ticket, made again when it breaks."""

    def __init__(self, ref: TransferRef, identity: TlsIdentity, patience_s: float) -> None:
        self.ref = ref
        host = f"[{ref.address}]" if ":" in ref.address else ref.address
        self.url = f"https://{host}:{ref.port}/v1/transfers/{ref.name}"
        self.common: dict[str, Any] = {
            "ssl": identity.client_context(),
            "server_hostname": server_name(host_role(ref.host)),
            "allow_redirects": False,
        }
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1),
            timeout=aiohttp.ClientTimeout(total=None, connect=10, sock_read=STALL_S),
            read_bufsize=BLOCK,
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        )
        self._patience_s = patience_s
        self._broken_since: float | None = None
        self.tries = 0

    async def pause(self, error: BaseException, offset: int) -> None:
        """Wait before the next try, longer each time; `TransferBroken` when patience is over.

        A wrong certificate and a second user of the ticket are final at once.
        """
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            raise PeerRefused(reason=str(error.certificate_error)) from error
        if isinstance(error, TicketBusy):
            raise error
        now = asyncio.get_running_loop().time()
        self._broken_since = self._broken_since or now
        left = self._broken_since + self._patience_s - now
        if left <= 0:
            address = f"{self.ref.address}:{self.ref.port}"
            reason = str(error) or type(error).__name__
            raise TransferBroken(peer=self.ref.host, address=address, offset=offset, reason=reason) from error
        self.tries += 1
        await asyncio.sleep(min(left, 5.0, 0.05 * 2 ** min(self.tries, 8)))

    def taking(self) -> dict[str, str]:
        """After a break the other side may still wait on the dead connection: ask to take over from it."""
        return {"take": "1"} if self.tries else {}

    def went_on(self) -> None:
        """There was progress: patience begins anew with the next break."""
        self._broken_since, self.tries = None, 0


class RemoteReader:
    """`async with RemoteReader(ref, identity) as reader`: `reader.size`, then `async for block in reader.blocks()`."""

    def __init__(self, ref: TransferRef, identity: TlsIdentity, *, patience_s: float = PATIENCE_S) -> None:
        self._remote = _Remote(ref, identity, patience_s)
        self._tag = ""
        self.size = 0

    async def __aenter__(self) -> Self:
        try:
            while True:
                try:
                    async with self._remote.session.get(self._remote.url + "/state", **self._remote.common) as reply:
                        await _raise_for(reply, self._remote.ref)
                        state = json.loads(await reply.read())
                    self._tag, self.size = str(state["tag"]), int(state["size"])
                    return self
                except _RETRIED as error:
                    await self._remote.pause(error, 0)
        except BaseException:
            await self._remote.session.close()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._remote.session.close()

    async def blocks(self, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes from `offset` to the end, in blocks of up to 1 MiB, each byte once, across broken connections.

        Raises `TransferMismatch` when the file changed, `TicketUnknown` when the ticket is gone, `TransferBroken`.
        """
        while offset < self.size:
            headers = {"Range": f"bytes={offset}-", "If-Match": self._tag}
            try:
                async with self._remote.session.get(
                    self._remote.url, params=self._remote.taking(), headers=headers, **self._remote.common
                ) as reply:
                    await _raise_for(reply, self._remote.ref)
                    async for block in reply.content.iter_chunked(BLOCK):
                        offset += len(block)
                        self._remote.went_on()
                        yield block
            except _RETRIED as error:
                await self._remote.pause(error, offset)


async def fetch(
    ref: TransferRef,
    identity: TlsIdentity,
    fd: int,
    *,
    offset: int = 0,
    max_bytes: int | None = None,
    progress: Progress | None = None,
    patience_s: float = PATIENCE_S,
) -> int:
    """Copy the remote file into `fd` from `offset` on, synced at the end; returns its size in bytes.

    Raises `TransferMismatch` when the file is larger than `max_bytes`, or what `RemoteReader.blocks` raises.
    """
    loop = asyncio.get_running_loop()
    pending: asyncio.Future[None] | None = None
    async with RemoteReader(ref, identity, patience_s=patience_s) as reader:
        if max_bytes is not None and reader.size > max_bytes:
            raise TransferMismatch(offset=0, reason=f"it has {reader.size} bytes, more than the {max_bytes} expected")
        try:
            async for block in reader.blocks(offset):
                if pending is not None:
                    await asyncio.shield(pending)
                pending = loop.run_in_executor(None, _write_all, fd, block, offset)
                offset += len(block)
                if progress is not None:
                    progress(offset, reader.size)
            if pending is not None:
                await asyncio.shield(pending)
        finally:
            if pending is not None:
                await asyncio.wait([pending])
        await asyncio.to_thread(os.fsync, fd)
        return reader.size


async def push(
    ref: TransferRef,
    identity: TlsIdentity,
    blocks: AsyncIterator[bytes],
    *,
    total: int | None = None,
    progress: Progress | None = None,
    patience_s: float = PATIENCE_S,
) -> int:
    """Write a stream (which can not be read twice) to the remote file; returns its size when all is synced there.

    It is sent in segments of 4 MiB, each held until it is acknowledged. Raises `TransferTooLarge`, `TransferDenied`,
    `TicketUnknown`, `TransferBroken`, or what the stream raises.
    """
    remote = _Remote(ref, identity, patience_s)
    offset = 0
    try:
        async for segment in _segments(blocks):
            await _put(remote, segment, offset, last=False)
            offset += len(segment)
            if progress is not None:
                progress(offset, total)
        await _put(remote, b"", offset, last=True)
        return offset
    finally:
        await remote.session.close()


async def file_blocks(fd: int, offset: int = 0) -> AsyncIterator[bytes]:
    """An open file as a stream for `push`, read in a thread."""
    while block := await asyncio.to_thread(os.pread, fd, SEGMENT, offset):
        offset += len(block)
        yield block


async def _segments(blocks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    held, size = [], 0
    async for block in blocks:
        view = memoryview(block)
        while view:
            part = view[: SEGMENT - size]
            held.append(part)
            size, view = size + len(part), view[len(part) :]
            if size == SEGMENT:
                yield b"".join(held)
                held, size = [], 0
    if size:
        yield b"".join(held)


async def _slices(segment: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(segment)
    for start in range(0, len(view), _SLICE):
        yield view[start : start + _SLICE]


async def _put(remote: _Remote, segment: bytes, offset: int, *, last: bool) -> None:
    length = {"Content-Length": str(len(segment))}
    # The answer comes when the far disk has it.
    limit = aiohttp.ClientTimeout(total=None, connect=10, sock_read=SYNC_S)
    while True:
        query = {"offset": str(offset)}
        if last:
            query["last"] = "1"
        query |= remote.taking()
        try:
            async with remote.session.put(
                remote.url, params=query, data=_slices(segment), headers=length, timeout=limit, **remote.common
            ) as reply:
                await _raise_for(reply, remote.ref)
                await reply.read()
            remote.went_on()
            return
        except _RETRIED as error:
            await remote.pause(error, offset)


async def _raise_for(reply: aiohttp.ClientResponse, ref: TransferRef) -> None:
    if reply.status < 300:
        return
    try:
        raise from_body(json.loads(await reply.content.read(1 << 16))["error"])
    except (ValueError, KeyError, TypeError):
        address = f"{ref.address}:{ref.port}"
        raise BadAnswer(peer=ref.host, address=address, status=reply.status, reason="no error body") from None


def _write_all(fd: int, block: bytes, offset: int) -> None:
    view = memoryview(block)
    while view:
        done = os.pwrite(fd, view, offset)
        offset, view = offset + done, view[done:]
