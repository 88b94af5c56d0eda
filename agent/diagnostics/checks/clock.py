"""Is the clock right?"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator

from agent.diagnostics.finding import Finding, bad, ok, warning
from agent.diagnostics.place import Place

_EARLIEST = 1_750_000_000
_TIME_ERROR = 5
_TIMEX_BYTES = 512
_REMEDY = "Run a time service (systemd-timesyncd, chrony): certificates and leases need clocks that agree within 60 s."


def check(place: Place) -> Iterator[Finding]:
    if time.time() < _EARLIEST:
        yield bad("clock", f"It is {time.strftime('%Y-%m-%d %H:%M', time.gmtime())}, says this host.", _REMEDY)
        return
    # A zeroed timex asks without changing anything.
    asked = ctypes.create_string_buffer(_TIMEX_BYTES)
    if ctypes.CDLL(None, use_errno=True).adjtimex(asked) == _TIME_ERROR:
        yield warning("clock", "The kernel says that the clock is not synchronised.", _REMEDY)
    else:
        yield ok("clock", "The clock is synchronised.")
