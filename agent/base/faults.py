"""Named places where the engines can be killed, so that a test can prove that each kill heals.

`fault_point(name)` costs one comparison when no fault is set. `--set testing.fault=NAME` makes the process kill
itself (SIGKILL, as an operator or the kernel would) the first time it passes there; `NAME@N` the Nth time. `!NAME`
makes it stand still instead (SIGSTOP), until somebody lets it go on: what it works with can be killed meanwhile.
Every name is declared in `declare()` at import, so that a test can list them and fail if one is never passed.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

_declared: set[str] = set()
_armed: str | None = None
_countdown = 1
_signal = signal.SIGKILL
_record: Path | None = None


def declare(*names: str) -> None:
    """State that these fault points exist in the calling module."""
    _declared.update(names)


def declared() -> frozenset[str]:
    """All fault points of the modules that are loaded."""
    return frozenset(_declared)


def arm(fault: str | None, record: Path | None = None) -> None:
    """Choose the point to die at (`NAME`, `NAME@N`, `!NAME`), and a file that every passed name is appended to."""
    global _armed, _countdown, _record, _signal
    name, _, nth = (fault or "").removeprefix("!").partition("@")
    _signal = signal.SIGSTOP if fault and fault.startswith("!") else signal.SIGKILL
    _armed, _countdown, _record = name or None, int(nth or 1), record


def fault_point(name: str) -> None:
    """Pass a named place; dies here when the place is armed."""
    global _countdown
    if _armed is None and _record is None:
        return
    if name not in _declared:
        raise AssertionError(f"fault point {name!r} is not declared")
    if _record is not None:
        with _record.open("a") as out:
            out.write(name + "\n")
    if name == _armed:
        _countdown -= 1
        if _countdown == 0:
            os.kill(os.getpid(), _signal)
