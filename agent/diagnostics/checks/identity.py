"""Is this host enrolled, and for how long?"""

from __future__ import annotations

import time
from collections.abc import Iterator

from agent.diagnostics.finding import Finding, bad, ok, warning
from agent.diagnostics.place import Place

_DAY_S = 86400.0
_JOIN = "Enrol this host: brickyard host token, then here: brickyard-agent join TOKEN"


def check(place: Place) -> Iterator[Finding]:
    from agent.wire import pins

    file = place.identity_dir / "certificate.pem"
    if not file.exists():
        yield bad("identity", "This host is not enrolled.", _JOIN)
        return
    try:
        leaf, *_ = pins.chain(file.read_bytes())
    except ValueError:
        yield bad("identity", f"{file} is not a certificate.", _JOIN)
        return
    begins, ends, now = *(each.timestamp() for each in pins.validity(leaf)), time.time()
    left, whole = ends - now, ends - begins
    if now < begins:
        yield bad("identity", "The certificate is not valid yet.", "Set the clock of this host or of the coordinator.")
    elif left < 0:
        remedy = "Let the coordinator reach this host: it renews also what ran out. Else enrol it anew."
        yield bad("identity", f"The certificate ran out {-left / _DAY_S:.1f} days ago.", remedy)
    elif left < whole / 3:
        remedy = "The coordinator renews at two thirds of what is left; check that it reaches this host's control port."
        yield warning("identity", f"The certificate is valid for {left / _DAY_S:.1f} more days.", remedy)
    else:
        yield ok("identity", f"Enrolled; the certificate is valid for {left / _DAY_S:.1f} more days.")
