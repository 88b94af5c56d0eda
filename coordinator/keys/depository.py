"""The keys of volumes, deposited at a key manager for those who decrypt volumes elsewhere, and taken back with them.

The sealed store stays the one that hosts are served from, so a manager that is away holds up nobody. Each key is
deposited under a name made for that alone, which is written down before: who comes after a kill finds it by name.
Once it was read back, the volume names the manager's secret. What has to go from a manager is a row until it is gone.
So a key that an operator has moved from one manager to another leaves the first when the other has it, not before.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from coordinator.keys.errors import ManagerAway, NotDeposited, NotTheSame
from coordinator.keys.store import KeyStore, Secret
from coordinator.state import deposits, issues
from coordinator.state.database import Database
from coordinator.state.issues import Issue

log = get_logger(__name__)
AWAY = "keys.manager-away"
_AT_ONCE = 100


class Manager(Protocol):
    """What a key manager is asked for; see `barbican.Barbican` and `vault.Vault`."""

    async def find(self, name: str) -> list[str]: ...
    async def store(self, name: str, secret: Secret) -> str: ...
    async def read(self, secret_id: str) -> bytes | None: ...
    async def allow(self, secret_id: str, user_id: str) -> None: ...
    async def use(self, secret_id: str, volume_id: str) -> None: ...
    async def remove(self, name: str, kept: str | None = None) -> None: ...
    async def close(self) -> None: ...


class Depository:
    """`await run()` until cancelled. Two coordinators may do the same at once: one of them makes it count.

    `managers` by name; `target` names the one that gets keys, or is `local`: then keys are only taken back.
    """

    def __init__(
        self, db: Database, keys: KeyStore, managers: Mapping[str, Manager], target: str, interval_s: float
    ) -> None:
        self._db, self._keys, self._managers, self._target = db, keys, managers, target
        self._interval_s = interval_s
        self._one = asyncio.Lock()

    async def run(self) -> None:
        """Look for what is to be done, again and again; a manager that is away is an issue until it is back."""
        while True:
            try:
                await self.work()
            except BrickyardError as error:
                log.warning("a key manager was not told all", code=error.code, reason=str(error))
                await self._tell(error)
            except Exception:
                log.exception("the key manager is told later")
            await asyncio.sleep(self._interval_s)

    async def close(self) -> None:
        for manager in self._managers.values():
            await manager.close()

    async def work(self) -> int:
        """One round: deposit what is missing, move what is to lie elsewhere, take back what is not needed any more.

        Returns how many of all. A key that is refused does not keep the others; the first refusal is raised at the end.
        """
        done, refused = 0, list[BrickyardError]()
        async for row in self._each(deposits.not_deposited if self._target in self._managers else _none):
            done += await self._unless_refused(self._deposit(row, self._target), refused)
        async for row in self._each(deposits.moving):
            if row.moving_to == deposits.LOCAL:
                done += await self._unless_refused(self._take_home(row.key_id), refused)
            elif row.moving_to in self._managers:
                done += await self._unless_refused(self._deposit(row, row.moving_to), refused)
        while leaving := await self._db.read(lambda conn: deposits.leaving(conn, _AT_ONCE, list(self._managers))):
            for name, manager in ((row.name, row.manager) for row in leaving):
                for one in self._managers.values() if manager is None else (self._managers[manager],):
                    await one.remove(name)
                await self._db.write(lambda conn, name=name: deposits.left(conn, name))  # type: ignore[misc]
                done += 1
        if refused:
            raise refused[0]
        await self._db.write(lambda conn: issues.close(conn, AWAY, "keys"))
        return done

    async def for_use(self, volume_id: str, user_id: str) -> str:
        """The id of the volume's secret at its manager, which that user may read from now on; raises NotDeposited."""
        row = await self._db.read(lambda conn: deposits.of_volume(conn, volume_id))
        goal = row.moving_to if row is not None and row.external else self._target
        if row is not None and goal in self._managers:
            await self._deposit(row, goal)
            row = await self._db.read(lambda conn: deposits.of_volume(conn, volume_id))
        if row is None or (not row.external and self._target in self._managers):
            raise NotDeposited(volume=volume_id)
        if row.external and row.manager in self._managers:
            await self._managers[row.manager].allow(row.key_id, user_id)
        return str(row.key_id)

    async def _each(self, query: Callable[[Connection, int, str], Sequence[Row[Any]]]) -> AsyncIterator[Row[Any]]:
        after = ""
        while found := await self._db.read(lambda conn, after=after: query(conn, _AT_ONCE, after)):  # type: ignore[misc]
            for row in found:
                yield row
            after = found[-1].key_id

    async def _unless_refused(self, work: Any, refused: list[BrickyardError]) -> bool:
        try:
            return bool(await work)
        except ManagerAway:
            raise
        except BrickyardError as error:
            refused.append(error)
            return False

    async def _deposit(self, row: Row[Any], place: str) -> bool:
        """Let the manager `place` have the volume's key; whether it is there by this."""
        async with self._one:
            manager, key_id = self._managers[place], row.key_id

            def noted(conn: Connection) -> tuple[str, Secret] | None:
                name = deposits.note(conn, key_id, place)
                return None if name is None else (name, self._keys.get(conn, key_id))

            if (told := await self._db.write(noted)) is None:
                return False
            name, secret = told
            found = await manager.find(name)
            there = found[0] if found else await manager.store(name, secret)
            if not hmac.compare_digest(await manager.read(there) or b"", secret.value):
                raise NotTheSame(secret=there, manager=place)
            await manager.allow(there, row.user_id)
            await manager.use(there, row.volume_id)

            def adopt(conn: Connection) -> bool:
                return self._keys.adopt(conn, row.volume_id, key_id, deposits.Deposit(place, name, there))

            if await self._db.write(adopt):
                return True
            await self._unless_kept(manager, name, there)
            return False

    async def _take_home(self, key_id: str) -> bool:
        return await self._db.write(lambda conn: self._keys.take_home(conn, key_id))

    async def _unless_kept(self, manager: Manager, name: str, there: str) -> None:
        """The volume has another key by now, or another coordinator was first, or work is being done on the volume; in
        the last case it is tried again."""
        kept = await self._db.read(lambda conn: deposits.id_of(conn, name))
        if kept is None:
            await manager.remove(name)
            log.info("a key that nothing needs any more was taken back", secret=there)
        elif kept in await manager.find(name):
            await manager.remove(name, kept)

    async def _tell(self, error: BrickyardError) -> None:
        issue = Issue(
            code=AWAY,
            resource_type="service",
            resource_id="keys",
            sentence=f"The key manager was not told all: {error}",
            remedy="Until it answers, hosts are served from the sealed store; servers of a compute service can not "
            "open volumes whose keys it has not got yet.",
        )
        await self._db.write(lambda conn: issues.raise_issue(conn, issue))


def _none(conn: Connection, limit: int, after: str) -> Sequence[Row[Any]]:
    return ()
