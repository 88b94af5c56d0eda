"""Are the shares mounted that volumes lie on? Asks the kernel's table alone: a server that hangs hangs nobody here."""

from __future__ import annotations

from collections.abc import Iterator

from agent.backends.errors import NotMounted
from agent.backends.share import mounted
from agent.diagnostics.finding import Finding, bad, ok, skipped
from agent.diagnostics.place import Place


def check(place: Place) -> Iterator[Finding]:
    if not place.shares:
        yield skipped("shares", "No back end of this host is on a share.")
    for name, (driver, path, share) in place.shares.items():
        try:
            mounted(name, driver, path, share)
        except NotMounted as error:
            yield bad("shares", str(error), error.remedy)
        else:
            yield ok("shares", f"{share} is mounted at {path} for the back end {name}.")
