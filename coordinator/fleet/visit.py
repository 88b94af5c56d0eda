"""One poll of one host: what it tells is stored where it changed, and compared with the rows now and then."""

from __future__ import annotations

import time
from collections.abc import Mapping

from sqlalchemy import Connection

from agent.base.errors import BrickyardError
from agent.base.log import get_logger
from agent.wire.errors import BadAnswer, OutcomeUnknown, PeerRefused, PeerTooOld, Undelivered
from agent.wire.releases import OLDEST, too_old
from agent.wire.results import Report
from coordinator.enrolment.renewal import Renewal
from coordinator.fleet.directory import Directory, Known
from coordinator.fleet.forgetting import forget_finished
from coordinator.fleet.reconciler import Reconciler
from coordinator.state import clusters, fleet, issues
from coordinator.state.database import Database
from coordinator.state.errors import DatabaseUnavailable
from coordinator.state.issues import Issue

log = get_logger(__name__)
SILENT = (Undelivered, OutcomeUnknown, BadAnswer, PeerRefused, PeerTooOld)
_MOST_SKEW_S = 60.0
_NOTE_AGAIN_S = 30.0
_NAMED = 5
_DENIED_S = 1.0
RESTS = 19
"""Polls between two that are whole (everything is told again, and compared) while nothing changes on the host."""


class Visitor:
    """Polls hosts. That a host answered as before is only remembered, and written for many at once by `write_seen`."""

    def __init__(self, db: Database, directory: Directory, reconciler: Reconciler, renewal: Renewal) -> None:
        self._db = db
        self._directory = directory
        self._reconciler = reconciler
        self._renewal = renewal
        self._seen: set[str] = set()
        self._open: set[tuple[str, str]] | None = None
        self._denied_read = float("-inf")

    def forget(self) -> None:
        """Others may have opened and closed issues of hosts meanwhile, or denied certificates."""
        self._open = None
        self._denied_read = float("-inf")

    async def poll(self, known: Known) -> None:
        """Ask once; raises what the wire raises. The host is up, and its pools known, when this returns."""
        name = known.host.name
        await self._follow_denied()
        whole = known.rests <= 0 or not known.have
        asked = time.time()
        known.asked = time.monotonic()
        try:
            told = await known.client.report("" if whole else known.have)
        finally:
            known.asked = 0.0
        _check_release(known, told)
        skew = max(told.clock - time.time(), 0.0) + min(told.clock - asked, 0.0)
        if not known.mine:
            self._directory.found(known)
            return  # Its watcher stores what it tells.
        await self._store(known, told)
        known.have = told.have
        if not known.up:
            log.info("host answers", host=name)
        self._directory.found(known)
        await self._note(name, "host.unreachable", None)
        await self._note(name, "host.clock-skew", _skewed(name, skew) if abs(skew) > _MOST_SKEW_S else None)
        try:
            await self._renewal.give_denied(name, known.client)
            await self._compare(known, told.held)
            await forget_finished(self._db, known.client, told.finished)
        except (*SILENT, DatabaseUnavailable):
            raise
        except BrickyardError as error:
            log.warning("host not compared", host=name, reason=str(error))
            await self._note(name, "host.not-compared", _not_compared(name, error))
        else:
            await self._note(name, "host.not-compared", None)

    async def _follow_denied(self) -> None:
        if time.monotonic() - self._denied_read > _DENIED_S:
            self._denied_read = time.monotonic()
            await self._renewal.follow_denied()

    async def _store(self, known: Known, told: Report) -> None:
        name = known.host.name
        if told.host is not None or told.pools is not None or not known.up:
            await self._db.write(lambda conn: fleet.report(conn, name, told.host, told.pools))
        else:
            self._seen.add(name)
        if told.pools is not None:
            await self._note(name, "host.pools-unread", _unread(name, told.unread) if told.unread else None)

    async def _compare(self, known: Known, held: str) -> None:
        """Compare with the rows what changed on the host; every so often also what did not, as rows change too."""
        if held and known.held in {"", held} and known.rests > 0:
            known.held = held
            known.rests -= 1
            return
        known.rests = 0
        clear = await self._reconciler.examine(known)
        known.held = held
        known.rests = RESTS if clear and held else 0

    async def down(self, known: Known, error: BrickyardError) -> None:
        """A poll found nobody."""
        name = known.host.name
        if known.up:
            log.warning("host does not answer", host=name, reason=str(error))
        fresh = known.up or not known.failures
        known.up = False
        if not known.mine:
            return  # Its watcher may reach it all the same.
        if not fresh and time.monotonic() - known.noted < _NOTE_AGAIN_S:
            return
        issue = Issue(
            code="host.unreachable",
            resource_type="host",
            resource_id=name,
            host_id=name,
            sentence=str(error) if isinstance(error, PeerTooOld) else f"Host {name} does not answer: {error}",
            remedy=error.remedy or f"brickyard host show {name}",
        )
        self._seen.discard(name)
        await self._db.write(lambda conn: _silent(conn, name))
        await self._note(name, "host.unreachable", issue)
        known.noted = time.monotonic()

    async def write_seen(self) -> None:
        """Write of all hosts that answered as before that they did."""
        seen, self._seen = self._seen, set()
        if seen:
            try:
                await self._db.write(lambda conn: fleet.seen(conn, seen), patient=True)
            except DatabaseUnavailable:
                self._seen |= seen
                raise

    async def _note(self, name: str, code: str, issue: Issue | None) -> None:
        """Open or keep a host's issue of this code, or close it."""
        known = self._open
        if known is None:
            known = self._open = await self._db.read(issues.open_of_hosts)
        if issue is not None:
            await self._db.write(lambda conn: issues.raise_issue(conn, issue))
            known.add((code, name))
        elif (code, name) in known:
            await self._db.write(lambda conn: issues.settle(conn, name, [code], set()))
            known.discard((code, name))


def _silent(conn: Connection, name: str) -> None:
    fleet.set_reachable(conn, name, reachable=False)
    clusters.spread_idle(conn)


def _check_release(known: Known, told: Report) -> None:
    """Raise PeerTooOld for a host whose agent is not spoken to any more; it gets no job then."""
    if told.host is None:
        return
    known.client.refusal = None
    if too_old(told.host.version):
        oldest = ".".join(str(part) for part in OLDEST)
        known.client.refusal = PeerTooOld(
            peer=f"The agent of host {known.host.name}", found=told.host.version, oldest=oldest
        )
        raise known.client.refusal


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


def _unread(name: str, unread: Mapping[str, str]) -> Issue:
    told = "; ".join(f"{pool} ({reason})" for pool, reason in list(unread.items())[:_NAMED])
    more = f"; and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
    return Issue(
        code="host.pools-unread",
        resource_type="host",
        resource_id=name,
        host_id=name,
        sentence=f"Host {name} tells of pools in a way that can not be understood, and nothing is placed there: "
        f"{told}{more}.",
        remedy=f"Run on host {name}: brickyard-agent doctor; and see that its agent is of a release that this "
        "coordinator knows (brickyard host list).",
        details={"pools": dict(unread)},
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
