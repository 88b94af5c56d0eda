"""An image of a Glance: its data sent from here, checked against what the service says it keeps, or withdrawn."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from agent.images.pinning import Pinned, pin
from agent.images.qcow2_out import Plan
from agent.images.sending import pieces, stream
from agent.images.web import Rules, Tell, session_to
from agent.images.web_errors import (
    ServiceBusy,
    SourceAway,
    SourceDenied,
    SourceGone,
    UploadDiffers,
    UploadRefused,
)

_ANSWER_S = 3600.0
_PATCH = "application/openstack-images-v2.1-json-patch"


@dataclass(frozen=True, slots=True)
class Service:
    """`url` is the image's own address there (`/v2/images/ID`)."""

    url: str
    image_id: str
    token: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Talk:
    session: aiohttp.ClientSession
    pinned: Pinned
    service: Service


@dataclass(frozen=True, slots=True)
class Volume:
    """`size` bytes of `fd`, to be sent as they are or by the plan of a qcow2, with `compress` packed by gzip."""

    fd: int
    size: int
    compress: bool = False
    plan: Plan | None = None


async def upload(service: Service, volume: Volume, rules: Rules, tell: Tell) -> int:
    """Send a volume; returns how many bytes the image has.

    What an earlier run has sent whole is checked and left.

    Raises ServiceBusy, UploadRefused, UploadDiffers, SourceAway, SourceDenied, SourceGone.
    """
    async with _talk(service, rules) as talk:
        state = await _shown(talk)
        if state["status"] == "queued":
            digest, sent = await _send(talk, volume, tell)
            state = await _shown(talk)
        elif state["status"] == "active":
            digest, sent = await asyncio.to_thread(_digest, volume)
        else:
            raise ServiceBusy(id=service.image_id, state=str(state["status"])[:32])
        if state["status"] != "active":
            raise ServiceBusy(id=service.image_id, state=str(state["status"])[:32])
        known = state.get("os_hash_algo") == "sha512"
        if state.get("size") != sent or (known and state.get("os_hash_value") != digest):
            raise UploadDiffers(id=service.image_id)
        return sent


async def withdraw(service: Service, rules: Rules) -> None:
    """Remove the image, protected or not; none there is success."""
    async with _talk(service, rules) as talk:
        status = await _delete(talk)
        if status == 403:
            patch = json.dumps([{"op": "replace", "path": "/protected", "value": False}])
            async with talk.session.patch(service.url, data=patch, headers={"Content-Type": _PATCH}) as reply:
                await reply.read()
            status = await _delete(talk)
        if status not in (200, 202, 204, 404, 410):
            _refused(talk, status)


async def _delete(talk: _Talk) -> int:
    async with talk.session.delete(talk.service.url, allow_redirects=False) as reply:
        await reply.read()
        return reply.status


@asynccontextmanager
async def _talk(service: Service, rules: Rules) -> AsyncIterator[_Talk]:
    pinned = await pin(service.url, site=True)
    async with session_to(pinned, rules) as session:
        if service.token is not None:
            session.headers["X-Auth-Token"] = service.token
        try:
            yield _Talk(session, pinned, service)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise SourceAway(where=pinned.where, reason=str(error) or "no answer in time") from None


async def _shown(talk: _Talk) -> dict[str, Any]:
    async with talk.session.get(talk.service.url, allow_redirects=False) as reply:
        if reply.status != 200:
            _refused(talk, reply.status)
        found = json.loads(await reply.content.read(1 << 20))
    return found if isinstance(found, dict) and "status" in found else {"status": "unknown"}


async def _send(talk: _Talk, volume: Volume, tell: Tell) -> tuple[str, int]:
    digest, sent = hashlib.sha512(), 0

    async def blocks() -> AsyncIterator[bytes]:
        nonlocal sent
        async for block in pieces(volume.fd, volume.size, tell, compress=volume.compress, plan=volume.plan):
            await asyncio.to_thread(digest.update, block)
            sent += len(block)
            yield block

    service = talk.service
    headers = {**service.headers, "Content-Type": "application/octet-stream"}
    if not volume.compress:
        headers["Content-Length"] = str(volume.size if volume.plan is None else volume.plan.length)
    # The answer comes when the service's store has it all.
    limit = aiohttp.ClientTimeout(total=None, connect=10, sock_read=_ANSWER_S)
    address = f"{service.url}/file"
    async with talk.session.put(address, data=blocks(), headers=headers, timeout=limit, allow_redirects=False) as reply:
        await reply.read()
        if reply.status in (401, 403):
            _refused(talk, reply.status)
        if reply.status == 409:
            raise ServiceBusy(id=service.image_id, state="conflict")
        if reply.status >= 300:
            raise UploadRefused(id=service.image_id, status_code=reply.status)
    return digest.hexdigest(), sent


def _refused(talk: _Talk, status: int) -> None:
    where = talk.pinned.where
    if status in (401, 403):
        raise SourceDenied(where=where, status_code=status)
    if status in (404, 410):
        raise SourceGone(where=where, status_code=status)
    raise SourceAway(where=where, reason=f"it answered {status}")


def _digest(volume: Volume) -> tuple[str, int]:
    digest, length = hashlib.sha512(), 0
    for _, data in stream(volume.fd, volume.size, compress=volume.compress, plan=volume.plan):
        digest.update(data)
        length += len(data)
    return digest.hexdigest(), length
