"""Checksums and signatures over exactly the bytes that are used."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

from agent.images.errors import ChecksumDiffers

if TYPE_CHECKING:
    from agent.images.signature import Verifier

CHUNK = 4 << 20
Algorithm = Literal["md5", "sha256", "sha512"]


async def verify_checksum(fd: int, algorithm: Algorithm, value: str) -> None:
    """Compare the bytes of `fd` (from its start to its end, position untouched) with a hex digest; ChecksumDiffers."""
    await verify(fd, (algorithm, value), None)


async def verify(fd: int, checksum: tuple[Algorithm, str] | None, signed: Verifier | None) -> None:
    """Both, in one reading of `fd`. Raises ChecksumDiffers, SignatureDiffers; what is not given is not looked at."""
    wanted: set[str] = {checksum[0]} if checksum is not None else set()
    if signed is not None:
        wanted.add(signed.algorithm)
    if not wanted:
        return
    found = await asyncio.to_thread(_digests, fd, wanted)
    if checksum is not None and not hmac.compare_digest(found[checksum[0]].hex(), checksum[1].lower()):
        raise ChecksumDiffers(algorithm=checksum[0])
    if signed is not None:
        signed.check(found[signed.algorithm])


def _digests(fd: int, algorithms: Collection[str]) -> Mapping[str, bytes]:
    running, offset = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}, 0
    while chunk := os.pread(fd, CHUNK, offset):
        for digest in running.values():
            digest.update(chunk)
        offset += len(chunk)
    return {name: digest.digest() for name, digest in running.items()}
