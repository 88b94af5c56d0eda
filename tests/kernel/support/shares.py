"""What a back end on a mounted share must stand by any protocol: the share taken away, and a server that hangs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.backends.errors import NotMounted, ShareHangs
from agent.backends.share import ShareBackend
from agent.base.ids import new_id

MIB = 1 << 20


async def is_missed(
    backend: ShareBackend, point: Path, unmount: Callable[[], object], mount: Callable[[], object]
) -> None:
    """Without the share nothing is written below its place; with it again all is there."""
    ident = new_id()
    await backend.create(ident, MIB)
    unmount()
    with pytest.raises(NotMounted):
        await backend.create(new_id(), MIB)
    with pytest.raises(NotMounted):
        await backend.delete(ident)
    assert not list(point.iterdir())
    assert [one.code for one in await backend.issues()] == ["backend.not-mounted"]
    mount()
    assert await backend.size(ident) == MIB
    await backend.delete(ident)
    assert await backend.issues() == []
    backend.close()


async def hangs(
    backend: ShareBackend, pause: Callable[[], object], go_on: Callable[[], object], *, within: float
) -> None:
    """A call ends by the back end's deadline, the next one `within` so many seconds; all goes on with the server."""
    ident = new_id()
    await backend.create(ident, MIB)
    pause()
    try:
        with pytest.raises(ShareHangs):
            await backend.create(new_id(), MIB)
        began = asyncio.get_running_loop().time()
        with pytest.raises(ShareHangs):
            await backend.pools()
        assert asyncio.get_running_loop().time() - began < within
        assert [one.code for one in await backend.issues()] == ["backend.share-hangs"]
        assert await asyncio.to_thread(os.getpid) == os.getpid(), "threads are left for others"
    finally:
        go_on()
    async with asyncio.timeout(300):
        while await backend.issues():
            await asyncio.sleep(0.5)
    assert await backend.size(ident) == MIB
    for held in await backend.inventory():
        await backend.delete(held.id)
    backend.close()
