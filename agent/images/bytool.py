"""Images that use more of their format than our reader knows: converted by qemu-img, from file to file.

qemu opens LUKS1 alone. With sectors of 512 bytes and the same master key both versions encrypt a payload alike, so
for a LUKS2 volume a LUKS1 header with a throw-away key is laid just before the payload's place, qemu writes through
it, and it is blanked. Such a conversion begins again after a kill.
"""

from __future__ import annotations

import asyncio
import os
import secrets

from agent.images.conversion import Work, new_header
from agent.luks.blank import empty
from agent.luks.container import create, reveal
from agent.luks.convert import Node, convert
from agent.luks.model import STRONG_KEY_ITERATIONS, Format, Secret, header_bytes, passphrase
from agent.luks.stored import Put, put
from agent.luks.window import whole_file


async def by_tool(work: Work) -> None:
    """Fill the half-made file; durable on return. Raises as `convert` and `create`."""
    target = work.target
    await asyncio.to_thread(empty, work.fd, target.size)
    if target.encryption is None:
        await _convert(work, Node(work.fd, "raw"))
    elif target.encryption.format == "luks1":
        assert target.secret is not None
        await asyncio.to_thread(new_header, work, target.encryption)
        # qemu has to open it; under another name until it is published, nobody else does.
        await asyncio.to_thread(reveal, work.fd, target.encryption)
        await _convert(work, Node(work.fd, "luks", passphrase(target.secret)))
    else:
        await _second(work, target.encryption)


async def _convert(work: Work, node: Node) -> None:
    key = None if work.opened is None or work.image.secret is None else passphrase(work.image.secret)
    source = Node(work.image.fd, work.found.format, key)
    clear, usable, plain = work.found.virtual_size, work.target.usable, node.driver == "raw"
    await convert(source, node, clear_bytes=clear, usable=usable, target_zero=plain, watch=work.watch)


async def _second(work: Work, fmt: Format) -> None:
    made = await asyncio.to_thread(new_header, work, fmt)
    passing = Secret("symmetric", secrets.token_bytes(32))
    first = Format("luks1", fmt.cipher, fmt.key_size)
    start = header_bytes(fmt) - header_bytes(first)
    bridge = await asyncio.to_thread(_bridge, first, passing, made.master_key)
    await asyncio.to_thread(put, work.fd, Put(start, bridge))
    await _convert(work, Node(work.fd, "luks", passphrase(passing), offset=start))
    await asyncio.to_thread(put, work.fd, Put(start, bytes(len(bridge))))
    await asyncio.to_thread(reveal, work.fd, fmt)


def _bridge(fmt: Format, secret: Secret, master: bytes) -> bytes:
    fd = os.memfd_create("header", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, header_bytes(fmt) + (1 << 20))
        create(fd, fmt, secret, iterations=STRONG_KEY_ITERATIONS, master=master)
        reveal(fd, fmt)
        return whole_file(fd).exact(0, header_bytes(fmt))
    finally:
        os.close(fd)
