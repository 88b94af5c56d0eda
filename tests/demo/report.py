"""What the reader of the demo sees: each step as it goes, live progress, and the closing table."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

_MiB = 1 << 20


@dataclass(slots=True)
class Step:
    """A row of the table. `bytes` moved or checked; `notes` are what was shown."""

    name: str
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    bytes: int = 0


class Report:
    """On a terminal with bars that move, else line by line."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.started = time.monotonic()
        self.live = sys.stdout.isatty()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time what happens inside; its row is in the table when it went well."""
        step = Step(name)
        self.say(f"\n{len(self.steps) + 1}. {name}")
        yield step
        step.seconds = time.monotonic() - step.started
        self.steps.append(step)

    def say(self, line: str) -> None:
        with self._lock:
            print(line, flush=True)

    def proved(self, line: str) -> None:
        """One thing that was checked and is so."""
        self.say(f"   ok  {line}")

    def note(self, line: str) -> None:
        self.say(f"   --  {line}")

    @contextlib.contextmanager
    def progress(self, *names: str) -> Iterator[dict[str, Callable[[dict[str, Any]], None]]]:
        """For each name a function that takes operations as they go on."""
        if self.live:
            with _bars(names) as tellers:
                yield tellers
        else:
            yield {name: _lines(name, self.say) for name in names}

    def table(self) -> str:
        """Step, seconds, bytes, rate."""
        wide = max(len(step.name) for step in self.steps)
        lines = [f"{'step':<{wide}}  {'seconds':>8}  {'MiB':>8}  {'MiB/s':>8}"]
        for step in self.steps:
            amount = f"{step.bytes / _MiB:8.0f}" if step.bytes else f"{'':8}"
            rate = f"{step.bytes / _MiB / max(step.seconds, 1e-3):8.0f}" if step.bytes else f"{'':8}"
            lines.append(f"{step.name:<{wide}}  {step.seconds:8.1f}  {amount}  {rate}")
        total = sum(step.bytes for step in self.steps)
        seconds = time.monotonic() - self.started
        lines.append(f"{'all':<{wide}}  {seconds:8.1f}  {total / _MiB:8.0f}  {total / _MiB / seconds:8.0f}")
        return "\n".join(line.rstrip() for line in lines)


@contextlib.contextmanager
def _bars(names: tuple[str, ...]) -> Iterator[dict[str, Callable[[dict[str, Any]], None]]]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("       {task.description:<24}"), BarColumn(), DownloadColumn(binary_units=True),
               TransferSpeedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, transient=False) as progress:

        def teller(name: str) -> Callable[[dict[str, Any]], None]:
            task = progress.add_task(name, total=None)

            def tell(operation: dict[str, Any]) -> None:
                now = operation["progress"] or {}
                if now.get("total"):
                    shown = f"{name}, {now.get('phase', '')}"
                    progress.update(task, description=shown, completed=now["done"], total=now["total"])

            return tell

        yield {name: teller(name) for name in names}


def _lines(name: str, say: Callable[[str], None]) -> Callable[[dict[str, Any]], None]:
    """A line at each quarter of each phase."""
    told: set[tuple[str, int]] = set()

    def tell(operation: dict[str, Any]) -> None:
        now = operation["progress"] or {}
        total, done, phase = now.get("total") or 0, now.get("done") or 0, now.get("phase", "")
        if not total or (phase, 4 * done // total) in told:
            return
        told.add((phase, 4 * done // total))
        eta = now.get("eta_s")
        left = f", {eta:.1f} s left" if eta is not None else ""
        rate = (now.get("rate") or 0) / _MiB
        say(f"       {name}: {phase} {done // _MiB} of {total // _MiB} MiB, {rate:.0f} MiB/s{left}")

    return tell
