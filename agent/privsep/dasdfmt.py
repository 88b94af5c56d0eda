"""Running dasdfmt beside the verbs: it takes minutes to hours, and tells each cylinder that it has done."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from dataclasses import dataclass, field

from agent.privsep import tool

LAYOUTS = ("cdl", "ldl")
_BLOCK_BYTES = "4096"
_CYLINDER = re.compile(rb"cyl:?\s+(\d+) of\s+(\d+)")


@dataclass(slots=True)
class _Run:
    """One formatting, in cylinders; `code` None while it runs."""

    process: subprocess.Popen[bytes]
    done: int = 0
    total: int = 0
    code: int | None = None
    said: list[bytes] = field(default_factory=list)


_runs: dict[str, _Run] = {}
_changed = threading.Condition()


def running(bus_id: str) -> bool:
    with _changed:
        return bus_id in _runs and _runs[bus_id].code is None


def start(bus_id: str, device: str, layout: str) -> None:
    """ProgramMissing. The tool dies with this daemon."""
    process = tool.start("dasdfmt", ["-y", "-P", "-b", _BLOCK_BYTES, "-d", layout, device])
    with _changed:
        _runs[bus_id] = run = _Run(process)
    threading.Thread(target=_follow, args=(run,), name=f"dasdfmt-{bus_id}", daemon=True).start()


def wait(bus_id: str, after: int, seconds: float) -> dict[str, int | str | bool]:
    """{running, done, total (cylinders), error}: at once when there is news beyond `after` cylinders."""
    end = time.monotonic() + seconds
    with _changed:
        run = _runs.get(bus_id)
        if run is None:
            return {"running": False, "done": 0, "total": 0, "error": "no formatting was begun"}
        while run.code is None and run.done <= after and (left := end - time.monotonic()) > 0:
            _changed.wait(left)
        error = "" if not run.code else b"".join(run.said)[-500:].decode(errors="replace").strip() or f"{run.code}"
        return {"running": run.code is None, "done": run.done, "total": run.total, "error": error}


def _follow(run: _Run) -> None:
    assert run.process.stdout is not None
    for line in run.process.stdout:
        found = _CYLINDER.search(line)
        with _changed:
            if found:
                run.done, run.total = int(found[1]), int(found[2])
            else:
                run.said = [*run.said[-9:], line]
            _changed.notify_all()
    code = run.process.wait()
    with _changed:
        run.code = code
        _changed.notify_all()
