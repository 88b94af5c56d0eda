"""A LUKS2 payload written by a tool that only knows LUKS1.

With sectors of 512 bytes and the same master key both versions encrypt a payload alike. So a LUKS1 header with a
throw-away key is laid just before the payload's place, the tool writes through it, the header is blanked, and the
LUKS2 header is made last, with the master key that we chose: a half-made volume has no header to open.
"""

from __future__ import annotations

import asyncio
import os
import secrets

from agent.copying.errors import translated
from agent.luks.convert import Node, Watch, convert
from agent.luks.model import STRONG_KEY_ITERATIONS, Format, Secret, header_bytes, passphrase
from agent.luks.tool import format_header, sync
from agent.luks.window import whole_file

_ROOM = 1 << 20


async def fill_luks2(
    source: Node,
    target_fd: int,
    fmt: Format,
    secret: Secret,
    *,
    clear_bytes: int,
    usable: int,
    iterations: int,
    watch: Watch,
) -> None:
    """Fill the empty file `target_fd` (header and `usable` bytes) as LUKS2; durable on return. Raises as `convert`."""
    key = secrets.token_bytes(fmt.key_size // 8)
    passing = Secret("symmetric", secrets.token_bytes(32))
    first = Format("luks1", fmt.cipher, fmt.key_size)
    start = header_bytes(fmt) - header_bytes(first)
    bridge = await _bridge(first, passing, key, watch.lock_fd)
    await asyncio.to_thread(_write, target_fd, bridge, start)
    through = Node(target_fd, "luks", passphrase(passing), offset=start)
    await convert(source, through, clear_bytes=clear_bytes, usable=usable, target_zero=False, watch=watch)
    await asyncio.to_thread(_write, target_fd, bytes(len(bridge)), start)
    await format_header(
        target_fd, fmt, secret, iterations=iterations, volume_key=key, payload_there=True, lock_fd=watch.lock_fd
    )
    await asyncio.to_thread(sync, target_fd)


async def _bridge(fmt: Format, secret: Secret, key: bytes, lock_fd: int | None) -> bytes:
    fd = os.memfd_create("header", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, header_bytes(fmt) + _ROOM)
        await format_header(fd, fmt, secret, iterations=STRONG_KEY_ITERATIONS, volume_key=key, lock_fd=lock_fd)
        return whole_file(fd).exact(0, header_bytes(fmt))
    finally:
        os.close(fd)


def _write(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    try:
        while view:
            count = os.pwrite(fd, view, offset)
            view, offset = view[count:], offset + count
    except OSError as failure:
        raise translated(failure, "destination") from failure
