"""What the benchmarks of copies share: sparse files, cold caches, and what one child process costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

MIB = 1 << 20
SCALES, FREE = 1.6, 1.8
"""What two workers must bring, and what two processes must on a machine that can tell."""
_UNLUCKY = "Unable to get accurate CPU usage"


@dataclass(frozen=True)
class Cost:
    """One run: seconds on the clock and of all cores, bytes that went to the disk, the peak of memory in MiB."""

    wall: float
    cpu: float
    written: int
    peak_mib: float


def lay(path: Path, size: int, share: float, run: int = 4 * MIB) -> None:
    """A sparse file of random data in runs of `run` bytes, `share` of it allocated."""
    block, every = os.urandom(run), int(run / share)
    with path.open("wb") as out:
        out.truncate(size)
        for number, at in enumerate(range(0, size, every)):
            out.seek(at)
            out.write(number.to_bytes(8, "little") + block[8 : min(run, size - at)])
        out.flush()
        os.fsync(out.fileno())


def cold(path: Path) -> None:
    """Drop the file's pages from memory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def tool(argv: Sequence[str | Path], *, tries: int = 8) -> Cost:
    """Run a program and sync what it wrote; only a run that ended well is counted."""
    for _ in range(tries):
        begun = time.monotonic()
        with subprocess.Popen([str(word) for word in argv], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
            assert child.stderr is not None
            words = child.stderr.read().decode(errors="replace")
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            written = _written(child.pid)
            _, status, used = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode == 0:
            return Cost(time.monotonic() - begun, used.ru_utime + used.ru_stime, written, used.ru_maxrss / 1024)
        if _UNLUCKY not in words:
            break
    raise RuntimeError(f"{argv[0]} failed: {words}")


def _written(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("write_bytes")), 0)


def child(script: str, task: str, **given: Any) -> dict[str, Any]:
    """Run `SCRIPT child TASK JSON`; what it printed last, as JSON."""
    argv = [sys.executable, script, "child", task, json.dumps(given, default=str)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{task} failed: {done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(work: Callable[[], Any]) -> dict[str, Any]:
    """In a child: what `work` costs, without the start of the process, which a service pays once."""
    begun = _Begun()
    work()
    return begun.cost()


async def measured_here(work: Awaitable[Any]) -> dict[str, Any]:
    """The same of work of an event loop that runs already."""
    begun = _Begun()
    await work
    return begun.cost()


class _Begun:
    """What the process had cost when this was made."""

    def __init__(self) -> None:
        self._used, self._wrote, self._at = _used(), _written(os.getpid()), time.monotonic()

    def cost(self) -> dict[str, Any]:
        import resource

        wall = time.monotonic() - self._at
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        written = _written(os.getpid()) - self._wrote
        return {"wall": wall, "cpu": _used() - self._used, "written": written, "peak_mib": peak}


def _used() -> float:
    """Seconds of all cores."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def ratio(theirs: list[Cost], ours: list[Cost], what: str) -> float:
    """How many times less ours takes, of medians."""
    return median(getattr(cost, what) for cost in theirs) / max(median(getattr(cost, what) for cost in ours), 1e-9)


def free_cores() -> float:
    """How many times as much two processes get done as one just now, of a thing that shares nothing but cores."""
    code = "import hashlib; data = bytes(1 << 20); [hashlib.sha256(data) for _ in range(600)]"

    def took(number: int) -> float:
        begun = time.monotonic()
        running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(number)]
        for one in running:
            one.wait()
        return time.monotonic() - begun

    rounds = [(took(1), took(2)) for _ in range(3)]
    return 2 * median(one for one, _ in rounds) / median(two for _, two in rounds)


def scales(name: str, times: float) -> list[tuple[str, bool]]:
    """The figure of what two workers bring, to be judged; none where no second core is free to show it."""
    cores = free_cores()
    print(f"{name}: {times:.2f}x of one; two processes that share nothing: {cores:.2f}x")
    if cores < FREE:
        print(f"not judged: two cores are free only where that is >= {FREE}x")
        return []
    return [(f"{name} {times:.2f}x", times >= SCALES)]


def told(name: str, costs: list[Cost]) -> None:
    wall, cpu = median(cost.wall for cost in costs), median(cost.cpu for cost in costs)
    spread = f"{min(cost.wall for cost in costs):.2f}-{max(cost.wall for cost in costs):.2f}"
    written, peak = median(cost.written for cost in costs), max(cost.peak_mib for cost in costs)
    print(f"{name}: {wall:.2f} s ({spread}), CPU {cpu:.2f} s, {written / MIB:.0f} MiB written, peak {peak:.0f} MiB")
