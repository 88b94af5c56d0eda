"""Stop work when an event is set, with the work's own clean-up awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from agent.copying.errors import CopyCancelled

T = TypeVar("T")


async def unless_cancelled(work: Coroutine[Any, Any, T], cancel: asyncio.Event, total: int = 0) -> T:
    """The result of `work`, or CopyCancelled once `cancel` is set and the work has ended."""
    task = asyncio.ensure_future(work)
    told = asyncio.ensure_future(cancel.wait())
    try:
        await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is None:
            return task.result()
        raise CopyCancelled(done="some", total=total)
    finally:
        told.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
