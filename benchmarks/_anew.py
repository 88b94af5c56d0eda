"""An encrypted volume written anew under another master key, in memory: what of a copy the processors bound."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import _disk as disk

MIB = 1 << 20
_MEMORY = Path("/dev/shm")


def anew(given: dict[str, Any]) -> dict[str, Any]:
    """In a child: decrypt and encrypt `size` bytes from file to file, by so many workers."""
    from agent.copying.model import CopyOptions
    from agent.luks.blank import make_blank
    from agent.luks.model import Format, Secret, device_bytes
    from agent.luks.recrypt import Steering, Target, recrypt

    folder, size, fmt = Path(given["folder"]), given["size"], Format("luks1")
    source, dest, secret = folder / "source", folder / "dest", Secret("symmetric", os.urandom(32))

    async def save(mark: str, done: int) -> None:
        return None

    async def work() -> dict[str, Any]:
        source.touch()
        dest.touch()
        await make_blank(source, size, fmt, secret, iterations=1000)
        with source.open("r+b") as out:
            begin = device_bytes(size, fmt) - size
            for at in range(begin, begin + size, MIB):
                os.pwrite(out.fileno(), os.urandom(MIB), at)
        how = Steering(CopyOptions(workers=given["workers"]), lambda progress: None, asyncio.Event(), save)
        cost = await disk.measured_here(recrypt(source, secret, Target(dest, size, fmt, secret, 1000), how))
        disk.remove(source, dest)
        return cost

    return asyncio.run(work())


def two_workers(script: str, size: int, rounds: int) -> list[tuple[str, bool]]:
    """The figure to be judged of two workers against one; none where it can not be measured, which is said."""
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < 4 * size:
        print(f"two workers in memory: not measured, {_MEMORY} has no room for it")
        return []
    with tempfile.TemporaryDirectory(dir=_MEMORY, prefix="brickyard-benchmark-") as folder:
        turns = [
            [disk.Cost(**disk.child(script, "anew", folder=folder, size=size, workers=count)) for count in (1, 2)]
            for _ in range(rounds)
        ]
    single, double = ([turn[index] for turn in turns] for index in (0, 1))
    disk.told("encrypted anew in memory, one worker", single)
    disk.told("encrypted anew in memory, two workers", double)
    return disk.scales("two workers", disk.ratio(single, double, "wall"))
