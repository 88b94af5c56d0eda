"""The bytes of an image between its user and the host that keeps it, streamed with bounded memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from coordinator.api.call import Call, Reply
from coordinator.api.errors import UnsupportedMedia
from coordinator.api.image.common import caller_of, requester_of
from coordinator.images import catalog
from coordinator.images.catalog import Image
from coordinator.images.errors import ImageInvalid
from coordinator.operations.download_image import accept_download
from coordinator.operations.engine import Engine
from coordinator.operations.image_streams import ImageStreams, StreamBroken, Ticket, finish, told
from coordinator.operations.upload_image import accept_upload
from coordinator.state.operations import Operation

STALL_S = 60.0
_MEDIA = "application/octet-stream"


class RangeImpossible(ImageInvalid):
    code = "images.range"
    status = 416
    sentence = "The image has {size} bytes; the range asked for lies outside of them."


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes `start` to `stop` (exclusive) of `size`; `partial` when the client asked for a range."""

    start: int
    stop: int
    size: int
    partial: bool


async def upload(call: Call) -> None:
    """Stream the request's body into the image; returns when it is active, raises why it is not."""
    engine, streams = call.services.get(Engine), call.services.get(ImageStreams)
    request, image_id = call.request, call.params["image_id"]
    if request.content_type != _MEDIA:
        raise UnsupportedMedia(type=request.content_type)
    size = _announced(request)
    began = time.monotonic()

    async def transfer(ticket: Ticket, operation: Operation) -> dict[str, Any]:
        def tell(done: int) -> None:
            engine.progress(operation.id, told("uploading", done, size, time.monotonic() - began))

        done = await streams.push(ticket, _blocks(request), tell)
        if size is not None and done != size:
            raise StreamBroken(reason=f"{done} bytes of {size} arrived")
        return {"bytes": done}

    caller, requester = caller_of(call), requester_of(call)
    with streams.offer(transfer, requester.project_id) as stream:
        operation, _ = await engine.submit(
            lambda conn: (accept_upload(conn, requester, caller, image_id, stream=stream.name, size=size), None)
        )
        await finish(engine, operation, stream)


async def download(call: Call) -> web.StreamResponse | Reply:
    """Stream the image's bytes, or the one range that was asked for; 204 while there are none."""
    caller, image_id = caller_of(call), call.params["image_id"]
    image = await call.services.db.read(lambda conn: catalog.show(conn, caller, image_id))
    if image.row.status in ("queued", "saving"):
        return Reply(None, status=204)
    catalog.readable(caller, image.row)
    wanted = range_of(call.request.headers.get("Range"), image.row.size)
    response = _head(call, image, wanted)
    if call.request.method == "HEAD":
        return response
    try:
        await _send(call, image, wanted, response)
    except Exception:
        if not response.prepared:
            raise
        # The answer has begun: all that is left is to end the connection before its announced length.
        if call.request.transport is not None:
            call.request.transport.abort()
    return response


async def _send(call: Call, image: Image, wanted: Range, response: web.StreamResponse) -> None:
    engine, streams = call.services.get(Engine), call.services.get(ImageStreams)

    async def transfer(ticket: Ticket, operation: Operation) -> dict[str, Any]:
        await response.prepare(call.request)
        async for block in streams.pull(ticket, wanted.start, wanted.stop):
            await asyncio.wait_for(response.write(block), STALL_S)
        await response.write_eof()
        return {}

    caller, requester = caller_of(call), requester_of(call)
    with streams.offer(transfer, requester.project_id) as stream:
        operation, _ = await engine.submit(
            lambda conn: (accept_download(conn, requester, caller, image.row.id, stream=stream.name), None)
        )
        await finish(engine, operation, stream)


def range_of(header: str | None, size: int) -> Range:
    """The one byte range of a Range header; several, or another unit, give the whole. Raises RangeImpossible."""
    unit, _, text = (header or "").partition("=")
    first, dash, last = text.strip().partition("-")
    plain = all(part.isascii() and part.isdigit() and len(part) < 19 for part in (first, last) if part)
    if unit.strip().lower() != "bytes" or not dash or not plain or not (first or last):
        return Range(0, size, size, partial=False)
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    if start >= stop:
        raise RangeImpossible(size=size)
    return Range(start, stop, size, partial=True)


def _head(call: Call, image: Image, wanted: Range) -> web.StreamResponse:
    response = web.StreamResponse(status=206 if wanted.partial else 200)
    response.content_type = _MEDIA
    response.content_length = wanted.stop - wanted.start
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["x-openstack-request-id"] = call.context.request_id
    if wanted.partial:
        response.headers["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{wanted.size}"
    elif image.row.checksum:
        response.headers["Content-MD5"] = image.row.checksum
    return response


def _announced(request: web.Request) -> int | None:
    """How many bytes are said to come; None when the client does not know."""
    if request.content_length is not None:
        return request.content_length
    text = request.headers.get("X-OpenStack-Image-Size")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ImageInvalid(reason="X-OpenStack-Image-Size must be a number of bytes")
    return int(text)


async def _blocks(request: web.Request) -> AsyncIterator[bytes]:
    while True:
        try:
            data = await asyncio.wait_for(request.content.readany(), STALL_S)
        except TimeoutError:
            raise StreamBroken(reason=f"no byte came for {STALL_S:.0f} s") from None
        except (aiohttp.ClientError, web.RequestPayloadError, OSError) as error:
            raise StreamBroken(reason=str(error) or "the client went away") from error
        if not data:
            return
        yield data
