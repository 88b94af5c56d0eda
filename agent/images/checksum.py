"""Checksums over exactly the bytes that are used."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from typing import Literal

from agent.images.errors import ChecksumDiffers

CHUNK = 4 << 20


async def verify_checksum(fd: int, algorithm: Literal["md5", "sha256", "sha512"], value: str) -> None:
    """Compare the bytes of `fd` (from its start to its end, position untouched) with a hex digest; ChecksumDiffers."""
    found = await asyncio.to_thread(_digest, fd, algorithm)
    if not hmac.compare_digest(found, value.lower()):
        raise ChecksumDiffers(algorithm=algorithm)


def _digest(fd: int, algorithm: str) -> str:
    digest, offset = hashlib.new(algorithm, usedforsecurity=False), 0
    while chunk := os.pread(fd, CHUNK, offset):
        digest.update(chunk)
        offset += len(chunk)
    return digest.hexdigest()
