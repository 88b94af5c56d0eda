"""Encrypt a payload ourselves: AES-XTS over clear bytes that are read from memory or a file, for LUKS2."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import XTS

from agent.copying.errors import CopyCancelled, translated
from agent.host.run import uninterrupted
from agent.luks.convert import Watch
from agent.luks.meter import Meter

CHUNK = 1 << 20
WORKERS = 2


@dataclass(frozen=True, slots=True)
class Payload:
    """Where encrypted bytes go: `offset` in `fd`, sectors of `sector` bytes, numbered in units of 512."""

    fd: int
    offset: int
    sector: int
    key: bytes = field(repr=False)


async def encrypt(source_fd: int, clear_bytes: int, target: Payload, usable: int, watch: Watch) -> None:
    """Write `usable` encrypted bytes: the first `clear_bytes` of `source_fd`, then zeros; synced on return.

    `usable` is a multiple of the sector size. Raises CopyCancelled, DestinationFull, CopyFailed.
    """
    stop = threading.Event()
    meter = Meter(watch.phase, usable, watch.report)
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="encrypt")
    loop = asyncio.get_running_loop()

    def piece(at: int) -> None:
        if not stop.is_set():
            _piece(source_fd, clear_bytes, target, at, min(CHUNK, usable - at))

    try:
        for at in range(0, usable, CHUNK * WORKERS):
            if watch.cancel.is_set():
                raise CopyCancelled(done=at, total=usable)
            starts = range(at, min(usable, at + CHUNK * WORKERS), CHUNK)
            await uninterrupted(_all([loop.run_in_executor(pool, piece, start) for start in starts]))
            meter.at(min(usable, at + CHUNK * WORKERS))
        await asyncio.to_thread(os.fsync, target.fd)
        meter.at(usable, final=True)
    except OSError as failure:
        raise translated(failure, "destination") from failure
    finally:
        stop.set()
        pool.shutdown(wait=False)


async def _all(pieces: list[asyncio.Future[None]]) -> None:
    results = await asyncio.gather(*pieces, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


def _piece(source_fd: int, clear_bytes: int, target: Payload, at: int, length: int) -> None:
    wanted = max(0, min(length, clear_bytes - at))
    clear = bytearray()
    while len(clear) < wanted:
        part = os.pread(source_fd, wanted - len(clear), at + len(clear))
        if not part:
            break
        clear += part
    clear += bytes(length - len(clear))
    out, view = bytearray(length + 15), memoryview(clear)
    for start in range(0, length, target.sector):
        number = (at + start) // 512
        context = Cipher(AES(target.key), XTS(number.to_bytes(16, "little"))).encryptor()
        context.update_into(view[start : start + target.sector], memoryview(out)[start : start + target.sector + 15])
    done = memoryview(out)[:length]
    written = 0
    while written < length:
        written += os.pwrite(target.fd, done[written:], target.offset + at + written)
