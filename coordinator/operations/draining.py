"""Hosts that are drained: what has begun there is ended, what takes something away goes on, all else waits.

`advance` asks before it gives a host the first job of an operation; the wait ends when the host is enabled again, and
looks at the rows for that, so that any coordinator may have done it.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from sqlalchemy import Connection

from coordinator.operations.errors import HostDrained
from coordinator.operations.workflow import JobCall, Workflow
from coordinator.state import fleet
from coordinator.state.database import Database
from coordinator.state.operations import Operation

GOES_ON = frozenset(
    {"delete_volume", "delete_snapshot", "delete_image", "detach_host", "disconnect_volume", "unmanage_volume",
     "unmanage_snapshot", "clear_returned", "upload_image", "download_image"}
)  # fmt: skip
"""Kinds of work by which a host is emptied, and streams that a person holds open meanwhile."""
WAITS = "drained: "
"""How the reason of such a wait begins."""
_LOOK_S = 1.0


def held_back(conn: Connection, workflow: Workflow, operation: Operation, call: JobCall) -> bool:
    """Whether this job, which no host has got yet, has to wait: it would be the operation's first one there."""
    if operation.kind in GOES_ON or workflow.together(operation):
        return False  # What is made from nothing was just placed where hosts take what is new.
    if any(entry.get("host") == call.host_id for entry in operation.steps.values()):
        return False
    return fleet.drained(conn, call.host_id) is not None


def reason(host_id: str, why: str) -> str:
    """What an operation says that waits for it."""
    return f"{WAITS}host {host_id} begins nothing new" + (f" ({why})" if why else "")


class Drains:
    """Waiting for drained hosts: the row of each is looked at once for all who wait."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._closing = asyncio.Event()
        self._looks: dict[str, asyncio.Task[None]] = {}

    async def why(self, host_id: str) -> str | None:
        return await self._db.read(lambda conn: fleet.drained(conn, host_id))

    async def over(self, host_id: str, limit_s: float) -> None:
        """Wait until the host takes work again, or is not known any more; raises HostDrained after `limit_s`."""
        look = self._looks.get(host_id)
        if look is None or look.done():
            look = self._looks[host_id] = asyncio.create_task(self._look(host_id))
        done, _ = await asyncio.wait({look}, timeout=limit_s)
        if not done:
            raise HostDrained(host=host_id, seconds=int(limit_s))
        if self._looks.get(host_id) is look:
            del self._looks[host_id]
        look.result()

    async def _look(self, host_id: str) -> None:
        while await self.why(host_id) is not None and not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _LOOK_S)

    async def close(self) -> None:
        self._closing.set()
        await asyncio.gather(*self._looks.values(), return_exceptions=True)
