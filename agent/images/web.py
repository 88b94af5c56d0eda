"""An image fetched from a web server or an image service: pinned, bounded, and taken up again where it broke off."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from agent.base.errors import BrickyardError, Temporary
from agent.images.pinning import Network, OnlyThese, Pinned, pin
from agent.images.web_errors import SourceAway, SourceDenied, SourceGone, SourceMoved, SourceSlow, SourceTooLarge

BLOCK = 1 << 20
STALL_S = 30.0
_REDIRECTS = 3
Tell = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a fetch may do. `networks` are allowed beside public ones; `timeout_s` is for the whole of it."""

    networks: tuple[Network, ...] = ()
    max_bytes: int = 1 << 46
    timeout_s: float = 6 * 3600.0
    patience_s: float = 60.0
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where from: the first of `urls` that gives it. `size` None: not known before.

    `fixed`: its bytes never change (an image of a service, or one whose checksum is known), so that a fetch may go on
    in the middle without further proof.
    """

    urls: tuple[str, ...]
    token: str | None = field(default=None, repr=False)
    site: bool = False
    size: int | None = None
    fixed: bool = False


async def download(origin: Origin, fd: int, rules: Rules, tell: Tell) -> int:
    """Write the bytes to `fd` from its start, synced; returns their number.

    Raises what the last of the addresses raised: SourceRefused, SourceMoved, SourceGone, SourceAway, SourceDenied,
    SourceTooLarge, SourceSlow.
    """
    last: BrickyardError | None = None
    for url in origin.urls:
        try:
            pinned = await pin(url, site=origin.site, networks=rules.networks)
            async with asyncio.timeout(rules.timeout_s):
                return await _Fetch(pinned, origin, fd, rules, tell).run()
        except TimeoutError:
            raise SourceSlow(where=pinned.where, seconds=int(rules.timeout_s)) from None
        except BrickyardError as error:
            last = error
    assert last is not None, "there is at least one address"
    raise last


def session_to(pinned: Pinned, rules: Rules) -> aiohttp.ClientSession:
    """A session that connects to the pinned addresses alone."""
    # The default of aiohttp is the system's own list of authorities.
    trust: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(rules.ca_file)) if rules.ca_file else True
    connector = aiohttp.TCPConnector(resolver=OnlyThese(pinned), ssl=trust, limit=1, use_dns_cache=False)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, connect=10, sock_read=STALL_S),
        auto_decompress=False,
        read_bufsize=BLOCK,
        trust_env=False,
        headers={"Accept-Encoding": "identity", "User-Agent": "brickyard"},
    )


class _Fetch:
    def __init__(self, pinned: Pinned, origin: Origin, fd: int, rules: Rules, tell: Tell) -> None:
        self._pinned, self._origin, self._fd, self._rules, self._tell = pinned, origin, fd, rules, tell
        self._url, self._done = pinned.url, 0
        self._total, self._mark = origin.size, ""

    async def run(self) -> int:
        broken_since, furthest = None, 0
        loop = asyncio.get_running_loop()
        async with session_to(self._pinned, self._rules) as session:
            while True:
                try:
                    if await self._some(session):
                        await asyncio.to_thread(os.fsync, self._fd)
                        return self._done
                    continue
                except (aiohttp.ClientError, TimeoutError, SourceAway, ConnectionError) as error:
                    if isinstance(error, aiohttp.ClientConnectorCertificateError):
                        raise SourceAway(where=self._where, reason=str(error.certificate_error)) from None
                    now = loop.time()
                    if broken_since is None or self._done > furthest:
                        broken_since, furthest = now, max(furthest, self._done)
                    if now - broken_since >= self._rules.patience_s:
                        raise _away(self._where, error) from None
                await asyncio.sleep(min(2.0, 0.1 + now - broken_since))

    @property
    def _where(self) -> str:
        return self._pinned.where

    async def _some(self, session: aiohttp.ClientSession) -> bool:
        """One request; whether the image is whole now."""
        headers = {"X-Auth-Token": self._origin.token} if self._origin.token else {}
        if self._done and not (self._mark or self._origin.fixed):
            await self._restart()
        if self._done:
            headers["Range"] = f"bytes={self._done}-"
            if self._mark:
                headers["If-Range"] = self._mark
        for _ in range(_REDIRECTS + 1):
            async with session.get(self._url, headers=headers, allow_redirects=False) as reply:
                if 300 <= reply.status < 400:
                    target = self._pinned.leads_to(reply.headers.get("Location", ""))
                    if target is None:
                        raise SourceMoved(where=self._where)
                    self._url = target
                    continue
                await self._begun(reply)
                async for block in reply.content.iter_chunked(BLOCK):
                    await self._take(block)
                if self._total is None:
                    self._total = self._done
                if self._done < self._total:
                    raise SourceAway(where=self._where, reason=f"it ended at byte {self._done} of {self._total}")
                return True
        raise SourceMoved(where=self._where)

    async def _begun(self, reply: aiohttp.ClientResponse) -> None:
        """Judge the head of an answer."""
        status = reply.status
        if status in (401, 403):
            raise SourceDenied(where=self._where, status_code=status)
        if status in (204, 404, 410):
            raise SourceGone(where=self._where, status_code=status)
        if status not in (200, 206) or reply.headers.get("Content-Encoding", "identity") != "identity":
            raise SourceAway(where=self._where, reason=f"it answered {status}")
        length = reply.content_length
        if status == 206:
            if not reply.headers.get("Content-Range", "").startswith(f"bytes {self._done}-"):
                raise SourceAway(where=self._where, reason="it gave another range than was asked for")
        elif self._done:
            await self._restart()
        self._mark = _strong(reply.headers.get("ETag", "")) or reply.headers.get("Last-Modified", "")
        if length is not None:
            self._expect(self._done + length)

    def _expect(self, total: int) -> None:
        limit = self._rules.max_bytes if self._origin.size is None else self._origin.size
        if total > limit or (self._origin.size is not None and total != self._origin.size):
            raise SourceTooLarge(where=self._where, size=total, limit=limit)
        self._total = total

    async def _take(self, block: bytes) -> None:
        limit = self._rules.max_bytes if self._total is None else self._total
        if self._done + len(block) > limit:
            raise SourceTooLarge(where=self._where, size=self._done + len(block), limit=limit)
        await asyncio.to_thread(_write_all, self._fd, block, self._done)
        self._done += len(block)
        self._tell(self._done)

    async def _restart(self) -> None:
        self._done, self._total, self._mark = 0, self._origin.size, ""
        await asyncio.to_thread(os.ftruncate, self._fd, 0)


def _strong(tag: str) -> str:
    """A tag that promises equal bytes; a weak one does not."""
    return "" if tag.startswith("W/") else tag


def _away(where: str, error: BaseException) -> Temporary:
    if isinstance(error, Temporary):
        return error
    # This one's own text tells the whole address.
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return SourceAway(where=where, reason=text or "no answer in time")


def _write_all(fd: int, block: bytes, offset: int) -> None:
    view: memoryview[Any] = memoryview(block)
    while view:
        done = os.pwrite(fd, view, offset)
        offset, view = offset + done, view[done:]
