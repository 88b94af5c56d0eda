"""Polling: a timetable of this coordinator's hosts; what others watch is followed through the rows."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from contextlib import suppress

from agent.base.log import get_logger
from agent.base.metrics import registry
from coordinator.enrolment.renewal import Renewal
from coordinator.fleet.directory import Directory, Known
from coordinator.fleet.membership import Membership
from coordinator.fleet.reconciler import Reconciler
from coordinator.fleet.timetable import Place, Places, Timetable
from coordinator.fleet.visit import RESTS, SILENT, Visitor
from coordinator.state import enrolment, fleet, news
from coordinator.state.database import Database
from coordinator.state.errors import DatabaseUnavailable
from coordinator.state.tables.columns import utcnow

log = get_logger(__name__)
_FIRST_RETRY_S = 0.05
_SLOWEST_RETRY_S = 5.0
_RENEW_S = 3600.0
_RENEW_AGAIN_S = 60.0
_FOLLOW_S = 2.0
_LOOK_FOR_HOSTS_S = 30.0
_AT_ONCE, _MOST_AT_ONCE, _PATIENCE_S = 32, 512, 1.0
_MANY_FAIL, _MANY_TIMES = 256, 8
_WRITE_SEEN_S = 5.0
_KEPT_CONNECTIONS = 64  # With more hosts than this no connection stands between polls.
_LONGEST = 10  # Of hosts that were not heard for longer none is more urgent.
_SPREAD_S = 0.005  # What is due for many hosts at once is spread by so much for each.
_late = registry.histogram("brickyard_poll_late_seconds", "How long after its time a host is polled")
_lasted = registry.histogram("brickyard_poll_seconds", "How long a poll of a host takes")


class Poller:
    """`interval_s` between polls of a host that answers; one that does not is asked again after 0.05 … 5 s.

    With `membership`, only the hosts that are this coordinator's are polled; of the others it follows what their
    watchers have stored, unless a call of its own failed: then it asks the host itself.
    """

    def __init__(
        self, db: Database, directory: Directory, reconciler: Reconciler, renewal: Renewal, interval_s: float, *,
        membership: Membership | None = None,
    ) -> None:  # fmt: skip
        self._db = db
        self._directory = directory
        self._renewal = renewal
        self._interval_s = interval_s
        self._visitor = Visitor(db, directory, reconciler, renewal)
        self._membership = membership if membership is not None and not db.alone else None
        self._table = Timetable()
        self._places = Places(_AT_ONCE, _MOST_AT_ONCE, _PATIENCE_S)
        self._at_work: dict[Known, asyncio.Task[None]] = {}
        self._changing = asyncio.Lock()
        self._stir = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._taking: asyncio.Task[None] | None = None
        directory.doubt = self._doubted

    async def begin(self) -> None:
        await self.enrolled()
        self._tasks.append(asyncio.create_task(self._renew()))
        if self._membership is not None:
            loop = asyncio.get_running_loop()
            self._db.news.follow(news.HOSTS, lambda _: loop.call_soon_threadsafe(self._stir.set))
            self._membership.changed(self._shares_moved)
            await self._follow_others()
            self._tasks.append(asyncio.create_task(self._follow()))

    def _mine(self, name: str) -> bool:
        return self._membership is None or self._membership.mine(name)

    def _shares_moved(self) -> None:
        self._visitor.forget()
        mine = []
        for known in self._directory.all():
            was, known.mine = known.mine, self._mine(known.host.name)
            if was and not known.mine:
                known.failures = 0
                self._table.drop(known.host.name)
            elif known.mine and not was:
                # What the other has stored meanwhile may be older or newer than what was told here last.
                known.have, known.held = "", ""
                mine.append(known)
        if len(mine) <= _KEPT_CONNECTIONS:
            self._soon(mine)
        else:
            self._taking = asyncio.create_task(self._take(mine))

    async def _take(self, many: list[Known]) -> None:
        """Poll them when their former watcher would have: what was due while it was missed, the oldest first."""
        try:
            heard = await self._db.read(fleet.last_heard)
        except Exception as error:  # noqa: BLE001 - then all of them are asked
            log.warning("when hosts were heard last can not be read", reason=str(error))
            heard = {}
        now, today = time.monotonic(), utcnow()
        for known in many:
            at = heard.get(known.host.name)
            # Clocks of coordinators differ.
            ago = self._interval_s if at is None else max(0.0, (today - at).total_seconds())
            if known.mine and self._directory.get(known.host.name) is known:
                self._put(known, now + self._interval_s - min(ago, _LONGEST * self._interval_s), len(many))

    def _put(self, known: Known, due: float, among: int) -> None:
        """Poll it then; of many, comparing them is spread over several polls."""
        known.rests = random.randint(0, min(RESTS, among // _KEPT_CONNECTIONS))  # noqa: S311 - spreading
        self._table.put(known.host.name, due)

    def _soon(self, many: Iterable[Known]) -> None:
        """Poll these at once; on a large site within half an interval, and compare them within twenty."""
        hosts = list(many)
        step = min(_SPREAD_S, self._interval_s / 2 / max(1, len(hosts)))
        now = time.monotonic()
        for number, known in enumerate(hosts):
            self._put(known, now + number * step if number else now, len(hosts))

    def _doubted(self, known: Known) -> None:
        if known.failures == 0 or known.host.name not in self._table:
            self._table.put(known.host.name, time.monotonic())

    async def enrolled(self) -> None:
        """Called at start, and whenever a host was enrolled or evicted."""
        async with self._changing:  # An older list of hosts must not be followed after a newer one.
            if not self._tasks:
                self._tasks += [asyncio.create_task(self._rounds()), asyncio.create_task(self._write_seen())]
            await self._db.write(fleet.ensure_hosts)
            rows = await self._db.read(enrolment.hosts)
            before = {known.host.name for known in self._directory.all()}
            fresh = await self._directory.sync(rows)
            for known in fresh:
                known.mine = self._mine(known.host.name)
            self._visitor.forget()
            self._soon(known for known in fresh if known.mine)
            left = before - {row.name for row in rows}
            for gone in left:
                self._table.drop(gone)
                if self._membership is not None:
                    self._membership.forget(gone)
            for name in (*left, *(known.host.name for known in fresh)):
                self._renewal.forget(name)
            if fresh or left:
                self._db.news.tell(news.HOSTS)

    async def close(self) -> None:
        tasks = [*self._tasks, *self._at_work.values(), *([self._taking] if self._taking is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def poll(self, known: Known) -> None:
        """See `Visitor.poll`."""
        await self._visitor.poll(known)

    async def _rounds(self) -> None:
        while True:
            name, due = await self._table.next()
            known = self._directory.get(name)
            if known is None or known in self._at_work:
                continue  # What is at work notes its next time itself.
            if not known.mine and known.up:
                continue
            place = await self._places.take(known.waiting)
            _late.observe(max(0.0, time.monotonic() - due))
            self._at_work[known] = asyncio.create_task(self._turn(known, place, due))

    async def _turn(self, known: Known, place: Place, due: float) -> None:
        try:
            with _lasted.time():
                answered = await self._polled(known)
            if len(self._directory) > _KEPT_CONNECTIONS:
                await known.client.rest()
        finally:
            place.leave()
            self._at_work.pop(known, None)
        if self._directory.get(known.host.name) is not known:
            return
        now = time.monotonic()
        if not answered:
            known.failures += 1
            self._table.put(known.host.name, now + self._retry_s(known.failures))
            return
        known.failures = 0
        if not known.up:
            self._table.put(known.host.name, now)  # A call of an operation failed meanwhile.
        elif known.mine:
            self._table.put(known.host.name, max(now, due + self._interval_s))

    def _retry_s(self, failures: int) -> float:
        """Where a whole part of the site is away, each of it is asked less often."""
        failing = sum(known.failures > 0 for known in self._directory.all()) if failures > _MANY_TIMES else 0
        return min(_SLOWEST_RETRY_S, _FIRST_RETRY_S * 1.5 ** min(failures, 32)) * max(1.0, failing / _MANY_FAIL)

    async def _polled(self, known: Known) -> bool:
        """Poll once. A database that fails, or a defect, says nothing of the host, and must not end the polling."""
        try:
            try:
                await self._visitor.poll(known)
            except SILENT as error:
                await self._visitor.down(known, error)
                return False
        except DatabaseUnavailable as error:
            log.warning("what a host told can not be stored", host=known.host.name, reason=str(error))
            return False
        except Exception:
            log.exception("a host can not be polled", host=known.host.name)
            return False
        return True

    async def _write_seen(self) -> None:
        while True:
            await asyncio.sleep(min(_WRITE_SEEN_S, self._interval_s))
            try:
                await self._visitor.write_seen()
            except Exception:
                log.exception("that hosts answer can not be stored just now")

    async def _follow(self) -> None:
        """Take over what the watchers of the other hosts have found, and which hosts there are."""
        looked = time.monotonic()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stir.wait(), _FOLLOW_S)
            try:
                if self._stir.is_set() or time.monotonic() - looked > _LOOK_FOR_HOSTS_S:
                    self._stir.clear()
                    looked = time.monotonic()
                    await self.enrolled()
                await self._follow_others()
            except Exception:
                log.exception("what other coordinators know of hosts can not be read")

    async def _follow_others(self) -> None:
        silent = await self._db.read(fleet.silent)
        for known in self._directory.all():
            if known.mine or known.failures:
                continue
            answers = known.host.name not in silent
            if answers and not known.up:
                self._directory.found(known)
            elif not answers:
                known.up = False

    async def _renew(self) -> None:
        while True:
            pause_s = _RENEW_S
            try:
                if await self._renewal.renew_own():
                    log.info("own certificate renewed")
                for host, error in (await self._renewal.renew_due(self._mine)).items():
                    log.warning("certificate not renewed", host=host, reason=str(error))
            except Exception:
                log.exception("certificates can not be renewed just now")
                pause_s = _RENEW_AGAIN_S
            await asyncio.sleep(pause_s)
