"""The one table of checks: each is a module `agent.diagnostics.checks.NAME` with `check(place)`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib import import_module

from agent.base.errors import BrickyardError
from agent.diagnostics.finding import Finding, bad
from agent.diagnostics.place import Place

CHECKS = {
    "agent": "Does an agent run here?",
    "tools": "Are the programs there that the agent calls?",
    "kernel": "Does the kernel offer loop devices and encryption?",
    "limits": "May the privileged side do what the back ends need?",
    "lvm": "Can volumes on LVM be made, and is their place sound?",
    "shares": "Are the shares mounted that volumes lie on?",
    "ceph": "Can volumes in Ceph be made, read and written?",
    "rights": "Can the agent's user use its folders?",
    "identity": "Is this host enrolled, and for how long?",
    "clock": "Is the clock right?",
    "journal": "Is the journal whole?",
    "jobs": "Is a job stuck?",
    "remote": "Can this host offer volumes to others, and use theirs?",
    "fabric": "Can LUNs of arrays be reached by Fibre Channel?",
    "attachments": "Is what should be attached there?",
    "leftovers": "Are there half-made files that nothing needs?",
    "space": "Is there room?",
}
"""Name to question, in the order in which they are asked."""


def examine(place: Place, names: Iterable[str] = CHECKS) -> Iterator[Finding]:
    """What each check finds; a check that can not be made is a finding, too."""
    for name in names:
        function: Callable[[Place], Iterable[Finding]] = import_module(f"agent.diagnostics.checks.{name}").check
        try:
            yield from function(place)
        except BrickyardError as error:
            yield bad(name, str(error), error.remedy)
        except PermissionError as error:
            yield bad(name, f"{error.filename} can not be read: {error.strerror}.", "Run this command as root.")
        except OSError as error:
            yield bad(name, f"{error.filename or 'The host'} can not be read: {error.strerror}.", "Look at the file.")
