"""Polling: one task per host asks for its facts and pools, and for its inventory now and then."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from agent.wire.errors import BadAnswer, OutcomeUnknown, PeerRefused, Undelivered
from coordinator.enrolment.renewal import Renewal
from coordinator.fleet.directory import Directory, Known
from coordinator.fleet.forgetting import forget_finished
from coordinator.fleet.membership import Membership
from coordinator.fleet.reconciler import Reconciler
from coordinator.state import enrolment, fleet, issues, news
from coordinator.state.database import Database
from coordinator.state.errors import DatabaseUnavailable
from coordinator.state.issues import Issue

log = get_logger(__name__)
_FIRST_RETRY_S = 0.05
_SLOWEST_RETRY_S = 5.0
_RENEW_S = 3600.0
_RENEW_AGAIN_S = 60.0
_MOST_SKEW_S = 60.0
_FOLLOW_S = 2.0
_LOOK_FOR_HOSTS_S = 30.0
_SILENT = (Undelivered, OutcomeUnknown, BadAnswer, PeerRefused)


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
        self._reconciler = reconciler
        self._renewal = renewal
        self._interval_s = interval_s
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._membership = membership if membership is not None and not db.alone else None
        self._failing: set[str] = set()
        self._following: asyncio.Task[None] | None = None
        self._stir = asyncio.Event()

    async def begin(self) -> None:
        await self.enrolled()
        self._renewing = asyncio.create_task(self._renew())
        if self._membership is not None:
            loop = asyncio.get_running_loop()
            self._db.news.follow(news.HOSTS, lambda _: loop.call_soon_threadsafe(self._stir.set))
            self._membership.changed(self._shares_moved)
            await self._follow_others()
            self._following = asyncio.create_task(self._follow())

    def mine(self, host_id: str) -> bool:
        """Whether this coordinator watches the host."""
        return self._membership is None or self._membership.mine(host_id)

    def _shares_moved(self) -> None:
        for known in self._directory.all():
            known.doubted.set()

    async def enrolled(self) -> None:
        """Called at start, and whenever a host was enrolled or evicted."""
        async with self._changing:  # An older list of hosts must not be followed after a newer one.
            await self._db.write(fleet.ensure_hosts)
            rows = await self._db.read(enrolment.hosts)
            fresh = await self._directory.sync(rows)
            for known in fresh:
                old = self._tasks.pop(known.host.name, None)
                if old is not None:
                    old.cancel()
                self._tasks[known.host.name] = asyncio.create_task(self._watch(known))
            left = self._tasks.keys() - {row.name for row in rows}
            for gone in left:
                self._tasks.pop(gone).cancel()
            if fresh or left:
                self._db.news.tell(news.HOSTS)

    async def close(self) -> None:
        tasks = [*self._tasks.values(), *(task for task in (self._renewing, self._following) if task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, known: Known) -> None:
        retry_s, name = _FIRST_RETRY_S, known.host.name
        asked = False
        while True:
            if not self.mine(name) and not (asked and not known.up.is_set()):
                # Another coordinator watches it; a call that fails, or a new share, makes this one look.
                await known.doubted.wait()
                asked = True
            known.doubted.clear()
            if not self.mine(name) and known.up.is_set():
                continue
            if not await self._polled(known):
                self._failing.add(name)
                retry_s = min(_SLOWEST_RETRY_S, retry_s * 1.5)
                await asyncio.sleep(retry_s)
                continue
            self._failing.discard(name)
            retry_s = _FIRST_RETRY_S
            if not self.mine(name):
                continue
            try:
                await asyncio.wait_for(known.doubted.wait(), self._interval_s)
            except TimeoutError:
                continue

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
        answering = await self._db.read(fleet.reachable)
        for known in self._directory.all():
            self._believe(known, known.host.name in answering)

    def _believe(self, known: Known, answers: bool) -> None:
        if self.mine(known.host.name) or known.host.name in self._failing or answers == known.up.is_set():
            return
        if answers:
            self._directory.found(known)
        else:
            known.up.clear()

    async def _polled(self, known: Known) -> bool:
        """Poll once. A database that fails, or a defect, says nothing of the host, and must not end the polling."""
        try:
            try:
                await self.poll(known)
            except _SILENT as error:
                await self._down(known, error)
                return False
        except DatabaseUnavailable as error:
            log.warning("what a host told can not be stored", host=known.host.name, reason=str(error))
            return False
        except Exception:
            log.exception("a host can not be polled", host=known.host.name)
            return False
        return True

    async def poll(self, known: Known) -> None:
        """Ask once; raises what the wire raises. The host is up, and its pools known, when this returns."""
        name = known.host.name
        asked = time.time()
        facts = await known.client.host()
        skew = max(facts.clock - time.time(), 0.0) + min(facts.clock - asked, 0.0)
        pools = await known.client.pools()
        await self._db.write(lambda conn: fleet.report(conn, name, facts, pools))
        if not known.up.is_set():
            log.info("host answers", host=name)
        self._directory.found(known)
        await self._note(name, "host.unreachable", None)
        await self._note(name, "host.clock-skew", _skewed(name, skew) if abs(skew) > _MOST_SKEW_S else None)
        try:
            await self._renewal.give_denied(name, known.client)
            await self._reconciler.examine(known)
            await forget_finished(self._db, known.client)
        except (*_SILENT, DatabaseUnavailable):
            raise
        except BrickyardError as error:
            log.warning("host not compared", host=name, reason=str(error))
            await self._note(name, "host.not-compared", _not_compared(name, error))
        else:
            await self._note(name, "host.not-compared", None)

    async def _note(self, name: str, code: str, issue: Issue | None) -> None:
        """Open or keep a host's issue of this code, or close it."""
        if issue is not None:
            await self._db.write(lambda conn: issues.raise_issue(conn, issue))
        elif await self._db.read(lambda conn: issues.is_open(conn, code, name)):
            await self._db.write(lambda conn: issues.settle(conn, name, [code], set()))

    async def _down(self, known: Known, error: BrickyardError) -> None:
        name = known.host.name
        if known.up.is_set():
            log.warning("host does not answer", host=name, reason=str(error))
        known.up.clear()
        if not self.mine(name):
            return  # Its watcher may reach it all the same.
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
            pause_s = _RENEW_S
            try:
                if await self._renewal.renew_own():
                    log.info("own certificate renewed")
                for host, error in (await self._renewal.renew_due(self.mine)).items():
                    log.warning("certificate not renewed", host=host, reason=str(error))
            except Exception:
                log.exception("certificates can not be renewed just now")
                pause_s = _RENEW_AGAIN_S
            await asyncio.sleep(pause_s)


def _skewed(name: str, skew: float) -> Issue:
    return Issue(
        code="host.clock-skew",
        resource_type="host",
        resource_id=name,
        host_id=name,
        sentence=f"The clock of host {name} is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} "
        "that of the coordinator.",
        remedy="Set both clocks by the network (timedatectl set-ntp true): certificates and tokens are refused when "
        "clocks differ.",
        details={"seconds": round(skew)},
    )


def _not_compared(name: str, error: BrickyardError) -> Issue:
    return Issue(
        code="host.not-compared",
        resource_type="host",
        resource_id=name,
        host_id=name,
        sentence=f"Host {name} answers, but what it holds can not be compared with the rows: {error}",
        remedy=error.remedy or f"Run on host {name}: brickyard-agent doctor",
    )
