"""Which coordinators are alive, and which of them watches which host: agreed upon by rows and arithmetic, no leader.

Each says every few seconds that it is alive. A host belongs to the living coordinator that comes out highest for its
name (rendezvous hashing), so that one which comes or goes moves only its own share.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

from agent.base.log import get_logger
from coordinator.state import coordinators
from coordinator.state.database import Database

log = get_logger(__name__)
SAY_S = 3.0


def watcher(host_id: str, members: tuple[str, ...]) -> str:
    """The member that this host belongs to."""
    return max(members, key=lambda member: hashlib.sha256(f"{member} {host_id}".encode()).digest())


class Membership:
    """`await begin()`, then `mine(host)`; `changed` is called on the loop when others came or went."""

    def __init__(self, db: Database, owner: str, host: str, version: str) -> None:
        self._db = db
        self.owner, self._host, self._version = owner, host, version
        self.members: tuple[str, ...] = (owner,)
        self._watchers: dict[str, str] = {}
        self._heard: list[Callable[[], None]] = []
        self._saying: asyncio.Task[None] | None = None

    def changed(self, heard: Callable[[], None]) -> None:
        self._heard.append(heard)

    def mine(self, host_id: str) -> bool:
        """Whether it is this coordinator that watches the host."""
        if len(self.members) == 1:
            return True
        found = self._watchers.get(host_id)
        if found is None:
            found = self._watchers[host_id] = watcher(host_id, self.members)
        return found == self.owner

    def forget(self, host_id: str) -> None:
        """The host is not enrolled any more."""
        self._watchers.pop(host_id, None)

    async def begin(self) -> None:
        if not self._db.alone:
            await self._say()
            self._saying = asyncio.create_task(self._always())

    async def close(self) -> None:
        """Leave, so that the others need not wait until this one counts as dead."""
        if self._saying is None:
            return
        self._saying.cancel()
        await asyncio.gather(self._saying, return_exceptions=True)
        try:
            await self._db.write(lambda conn: coordinators.gone(conn, self.owner))
        except Exception as error:  # noqa: BLE001 - its time runs out by itself
            log.info("leaving could not be said", reason=str(error))

    async def _always(self) -> None:
        while True:
            await asyncio.sleep(SAY_S)
            try:
                await self._say()
            except Exception:
                log.exception("being alive can not be said just now")

    async def _say(self) -> None:
        await self._db.write(lambda conn: coordinators.alive(conn, self.owner, self._host, self._version))
        found = tuple(await self._db.read(coordinators.living))
        # One that was paused for long may find its own time run out; it is alive all the same.
        members = found if self.owner in found else (*found, self.owner)
        if members != self.members:
            log.info("coordinators of this site", alive=len(members))
            self.members, self._watchers = members, {}
            for heard in self._heard:
                heard()
