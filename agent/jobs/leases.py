"""Jobs on back ends that other hosts serve too: each goes on only while its coordinator is heard (ARCHITECTURE §4.8).

A host that nobody hears can not know whether another one has taken its work over by now. So it stops in time by its
own clock: the job is given up where it stands, its tools are killed, and nothing more of it is touched here.
"""

from __future__ import annotations

import asyncio
import time

from agent.base.log import get_logger
from agent.jobs.entry import Entry
from agent.wire.errors import JobTooLate
from agent.wire.jobs import JobRequest

log = get_logger(__name__)
_LOOK_S = 0.5


def _now() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def check(request: JobRequest) -> None:
    """A request that lay about for longer than its lease may have been given to another host since: JobTooLate."""
    if request.lease_s is None or request.sent_at is None:
        return
    late = time.time() - request.sent_at
    if abs(late) > request.lease_s:
        raise JobTooLate(key=request.key, seconds=round(late))


class Leases:
    """`extend(entry)` at each call about a job; one that is not called about in time is fenced."""

    def __init__(self) -> None:
        self._leased: dict[str, Entry] = {}
        self._timer: asyncio.TimerHandle | None = None

    def extend(self, entry: Entry) -> None:
        """Its coordinator was heard."""
        lease_s = entry.record.lease_s
        if lease_s is None or entry.terminal or entry.fenced:
            return
        entry.lease_until = _now() + lease_s
        self._leased[entry.key] = entry
        self._arm()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        now = _now()
        for key, entry in list(self._leased.items()):
            if entry.terminal or entry.ending:
                del self._leased[key]
            elif entry.lease_until < now:
                del self._leased[key]
                _fence(entry)
        if self._leased:
            self._arm()


def _fence(entry: Entry) -> None:
    log.warning("a job is given up: its coordinator was not heard in time", job=entry.key, lease_s=entry.record.lease_s)
    entry.fenced = True
    entry.cancel.set()
    if entry.task is not None:
        entry.task.cancel()
