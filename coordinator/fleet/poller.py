"""Polling: one task per host asks for its facts and pools, and for its inventory now and then."""

from __future__ import annotations

import asyncio

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from coordinator.enrolment.renewal import Renewal
from coordinator.fleet.directory import Directory, Known
from coordinator.fleet.forgetting import forget_finished
from coordinator.fleet.reconciler import Reconciler
from coordinator.state import enrolment, fleet, issues
from coordinator.state.database import Database
from coordinator.state.issues import Issue

log = get_logger(__name__)
_FIRST_RETRY_S = 0.05
_SLOWEST_RETRY_S = 5.0
_RENEW_S = 3600.0


class Poller:
    """`interval_s` between polls of a host that answers; one that does not is asked again after 0.05 … 5 s."""

    def __init__(
        self, db: Database, directory: Directory, reconciler: Reconciler, renewal: Renewal, interval_s: float
    ) -> None:
        self._db = db
        self._directory = directory
        self._reconciler = reconciler
        self._renewal = renewal
        self._interval_s = interval_s
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._renewing: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        await self.enrolled()
        self._renewing = asyncio.create_task(self._renew())

    async def enrolled(self) -> None:
        """Called at start, and whenever a host was enrolled or evicted."""
        await self._db.write(fleet.ensure_hosts)
        rows = await self._db.read(enrolment.hosts)
        for known in await self._directory.sync(rows):
            old = self._tasks.pop(known.host.name, None)
            if old is not None:
                old.cancel()
            self._tasks[known.host.name] = asyncio.create_task(self._watch(known))
        for gone in self._tasks.keys() - {row.name for row in rows}:
            self._tasks.pop(gone).cancel()

    async def close(self) -> None:
        tasks = [*self._tasks.values(), *([self._renewing] if self._renewing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, known: Known) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            known.doubted.clear()
            try:
                await self.poll(known)
            except BrickyardError as error:
                await self._down(known, error)
                retry_s = min(_SLOWEST_RETRY_S, retry_s * 1.5)
                await asyncio.sleep(retry_s)
                continue
            retry_s = _FIRST_RETRY_S
            try:
                await asyncio.wait_for(known.doubted.wait(), self._interval_s)
            except TimeoutError:
                continue

    async def poll(self, known: Known) -> None:
        """Ask once; raises what the wire raises. The host is up, and its pools known, when this returns."""
        name = known.host.name
        facts = await known.client.host()
        pools = await known.client.pools()
        await self._db.write(lambda conn: fleet.report(conn, name, facts, pools))
        if not known.up.is_set():
            log.info("host answers", host=name)
        self._directory.found(known)
        await self._db.write(lambda conn: issues.settle(conn, name, ["host.unreachable"], set()))
        await self._renewal.give_denied(name, known.client)
        await self._reconciler.examine(known)
        await forget_finished(self._db, known.client)

    async def _down(self, known: Known, error: BrickyardError) -> None:
        name = known.host.name
        if known.up.is_set():
            log.warning("host does not answer", host=name, reason=str(error))
        known.up.clear()
        issue = Issue(
            code="host.unreachable",
            resource_type="host",
            resource_id=name,
            host_id=name,
            sentence=f"Host {name} does not answer: {error}",
            remedy=error.remedy or f"brickyard host show {name}",
        )
        await self._db.write(lambda conn: fleet.set_reachable(conn, name, reachable=False))
        await self._db.write(lambda conn: issues.raise_issue(conn, issue))

    async def _renew(self) -> None:
        while True:
            if await self._renewal.renew_own():
                log.info("own certificate renewed")
            for host, error in (await self._renewal.renew_due()).items():
                log.warning("certificate not renewed", host=host, reason=str(error))
            await asyncio.sleep(_RENEW_S)
