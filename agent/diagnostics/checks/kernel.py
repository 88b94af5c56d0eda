"""Does the kernel offer loop devices and encryption?"""

from __future__ import annotations

from collections.abc import Iterator

from agent.diagnostics.finding import Finding, bad, ok, warning
from agent.diagnostics.place import Place
from agent.host import facts


def check(place: Place) -> Iterator[Finding]:
    offers = facts.capabilities(place.root)
    if "loop" in offers:
        yield ok("kernel", "Loop devices can be made.")
    else:
        yield bad("kernel", "There is no /dev/loop-control: volumes can not be attached here.", "Run: modprobe loop")
    if "dm-crypt" in offers:
        yield ok("kernel", "Device-mapper is there for encrypted volumes.")
    else:
        remedy = "Run: modprobe dm_crypt. Without it an encrypted volume is attached as its raw device."
        yield warning("kernel", "Device-mapper is not in the kernel.", remedy)
