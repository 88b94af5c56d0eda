"""The keys of volumes, deposited at a key manager for those who decrypt volumes elsewhere, and taken back with them.

The sealed store stays the one that hosts are served from, so a manager that is away holds up nobody. Each key is
deposited under a name made of its id here, which is written down before: who comes after a kill finds it by name.
Then the volume names the manager's secret. What has to go from the manager is a row until it is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from coordinator.keys.errors import NotDeposited
from coordinator.keys.store import KeyStore, Secret
from coordinator.state import issues
from coordinator.state import keys as rows
from coordinator.state.database import Database
from coordinator.state.issues import Issue

log = get_logger(__name__)
_AWAY = "keys.manager-away"
_AT_ONCE = 100


class Manager(Protocol):
    """What a key manager is asked for; see `barbican.Barbican` and `vault.Vault`."""

    async def find(self, name: str) -> list[str]: ...
    async def store(self, name: str, secret: Secret) -> str: ...
    async def allow(self, secret_id: str, user_id: str) -> None: ...
    async def use(self, secret_id: str, volume_id: str) -> None: ...
    async def remove(self, name: str) -> None: ...
    async def close(self) -> None: ...


class Depository:
    """`await run()` until cancelled. Two coordinators may do the same at once: one of them makes it count."""

    def __init__(self, db: Database, keys: KeyStore, manager: Manager, interval_s: float) -> None:
        self._db, self._keys, self._manager, self._interval_s = db, keys, manager, interval_s
        self._one = asyncio.Lock()

    async def run(self) -> None:
        """Look for what is to be done, again and again; a manager that is away is an issue until it is back."""
        while True:
            try:
                await self.work()
            except BrickyardError as error:
                log.warning("the key manager was not told all", code=error.code, reason=str(error))
                await self._tell(error)
            except Exception:
                log.exception("the key manager is told later")
            await asyncio.sleep(self._interval_s)

    async def close(self) -> None:
        await self._manager.close()

    async def work(self) -> int:
        """One round: deposit what is missing, take back what is not needed any more; how many of both."""
        async with self._one:
            missing: Sequence[Row[Any]] = await self._db.read(lambda conn: rows.not_deposited(conn, _AT_ONCE))
            for row in missing:
                await self._deposit(row.volume_id, row.user_id, row.key_id)
            leaving = await self._db.read(lambda conn: rows.leaving(conn, _AT_ONCE))
            for name in leaving:
                await self._manager.remove(name)
                await self._db.write(lambda conn, name=name: rows.left(conn, name))  # type: ignore[misc]
            await self._db.write(lambda conn: issues.close(conn, _AWAY, "keys"))
            return len(missing) + len(leaving)

    async def for_use(self, volume_id: str, user_id: str) -> str:
        """The id of the volume's secret at the manager, which that user may read from now on; raises NotDeposited."""
        async with self._one:
            row = await self._db.read(lambda conn: rows.of_volume(conn, volume_id))
            if row is not None and not row.external:
                await self._deposit(volume_id, user_id, row.key_id)
                row = await self._db.read(lambda conn: rows.of_volume(conn, volume_id))
            if row is None or not row.external:
                raise NotDeposited(volume=volume_id)
            await self._manager.allow(row.key_id, user_id)
            return str(row.key_id)

    async def _deposit(self, volume_id: str, user_id: str, key_id: str) -> None:
        name = await self._db.write(lambda conn: rows.note_deposit(conn, key_id))
        if name is None:
            return
        secret = await self._db.read(lambda conn: self._keys.get(conn, key_id))
        found = await self._manager.find(name)
        there = found[0] if found else await self._manager.store(name, secret)
        await self._manager.allow(there, user_id)
        await self._manager.use(there, volume_id)
        if not await self._db.write(lambda conn: self._keys.adopt(conn, volume_id, key_id, there)):
            await self._unless_kept(name, there)

    async def _unless_kept(self, name: str, there: str) -> None:
        """The volume has another key by now, or work is being done on it; in the latter case it is tried again."""

        def kept(conn: Connection) -> bool:
            return rows.has_name(conn, name)

        if not await self._db.read(kept):
            await self._manager.remove(name)
            log.info("a key that nothing needs any more was taken back", secret=there)

    async def _tell(self, error: BrickyardError) -> None:
        issue = Issue(
            code=_AWAY,
            resource_type="service",
            resource_id="keys",
            sentence=f"The key manager was not told all: {error}",
            remedy="Until it answers, hosts are served from the sealed store; servers of a compute service can not "
            "open volumes whose keys it has not got yet.",
        )
        await self._db.write(lambda conn: issues.raise_issue(conn, issue))
