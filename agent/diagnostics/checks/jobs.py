"""Is a job stuck?"""

from __future__ import annotations

import time
from collections.abc import Iterator

from agent.base.terminal.sizes import duration
from agent.diagnostics import journal
from agent.diagnostics.finding import Finding, ok, skipped, warning
from agent.diagnostics.place import Place

_SECRET_S = 60.0
_STALL_S = 3600.0


def check(place: Place) -> Iterator[Finding]:
    if not place.journal_file.exists():
        yield skipped("jobs", "There is no journal.")
        return
    live = journal.jobs(place.journal_file, ended=False)
    running, stuck = place.running() is not None, 0
    for job in live:
        age = time.time() - job["updated_at"]
        if job["state"] == "needs-secret" and age > _SECRET_S:
            message = f"Job {job['key']} ({job['kind']}) waits for its secrets for {duration(age)}."
            remedy = "The coordinator posts them by itself; see there: brickyard operation list --active"
        elif age > _STALL_S or (not running and age > _SECRET_S):
            message = f"Job {job['key']} ({job['kind']}) is {job['state']}, last changed {duration(age)} ago."
            remedy = "See brickyard operation list --active" if running else "Start the agent; it goes on by itself."
        else:
            continue
        stuck += 1
        yield warning("jobs", message, remedy)
    if not stuck:
        yield ok("jobs", f"{len(live)} jobs in hand, none stuck.")
