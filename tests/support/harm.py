"""Processes of a site that are killed one after another while something is done, each where it has come to."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tests.support.site import Part, Site

T = TypeVar("T")
MIDWAY = "midway"
"""In the place of a fault point: killed from outside while a job tells of progress."""
_PATIENCE_S = 900.0
_AT_REST_S = 3.0


class Harm:
    """A part and the points that it is still to die at, in their order; started again each time, armed for the next."""

    def __init__(self, part: Part, points: Sequence[str]) -> None:
        self._part, self.left, self._told = part, list(points), True
        if self.left and self.left[0] != MIDWAY:
            part.arm(self.left[0])

    def look(self, *, midway: Callable[[], bool]) -> None:
        if self.left and self.left[0] == MIDWAY and self._part.alive and midway():
            self._part.kill()
        if self._part.alive:
            return
        assert self._part.died() == -signal.SIGKILL, self._part.tail()
        assert self.left, f"{self._part.name} died once more\n{self._part.tail()}"
        self.left.pop(0)
        armed = self.left[0] if self.left and self.left[0] != MIDWAY else None
        self._part.begin(*([f"testing.fault={armed}"] if armed else []))
        self._told = False

    def end(self) -> None:
        """It serves again, and dies nowhere."""
        if not self._told:
            self._part.heard("port" if self._part.is_coordinator else "serves")
        self._part.arm(None)


def harmed(site: Site, points: Mapping[str, Sequence[str]], act: Callable[[], T]) -> T:
    """Do something while parts die at each of their points; raises AssertionError when one was not come to.

    Returns what `act` did once the site is at rest.
    """
    harms = {name: Harm(site.parts[name], chain) for name, chain in points.items()}
    deadline, resting = time.monotonic() + _PATIENCE_S, 0.0
    with ThreadPoolExecutor(1) as user:
        asked = user.submit(act)
        while resting == 0.0 or time.monotonic() - resting < _AT_REST_S:
            for harm in harms.values():
                harm.look(midway=lambda: _is_midway(site))
            if not (asked.done() and _at_rest(site)):
                resting = 0.0
            elif resting == 0.0:
                resting = time.monotonic()
            if asked.done() and not any(harm.left for harm in harms.values()):
                break
            assert time.monotonic() < deadline, ({name: harm.left for name, harm in harms.items()}, site.logs())
            time.sleep(0.02)
        for harm in harms.values():
            harm.end()
        site.api.hang_up()
        done = asked.result(60)
    left = {name: harm.left for name, harm in harms.items() if harm.left}
    assert not left, (left, done, site.logs())
    return done


def _at_rest(site: Site) -> bool:
    """Nothing is to be done by anybody, as the databases say; whether their processes live or not."""
    if site.truths.rows("SELECT id FROM operations WHERE state IN ('running', 'undoing')"):
        return False
    return not any(site.truths.journal(host, "SELECT key FROM jobs") for host in site.hosts)


def _is_midway(site: Site) -> bool:
    for host in site.hosts:
        for row in site.truths.journal(host, "SELECT progress FROM jobs WHERE state = 'running'"):
            told = json.loads(row["progress"] or "{}")
            if 0 < told.get("done", 0) < told.get("total", 0):
                return True
    return False
