"""Several guests at a time: one process for each, whose lines are passed on with its name before them."""

from __future__ import annotations

import os
import selectors
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Job:
    """One guest: what its lines begin with, what starts it and returns its status, and its part of a processor."""

    name: str
    run: Callable[[], int]
    load: float = 1.0


@dataclass(slots=True)
class _Child:
    name: str
    pid: int
    load: float
    rest: bytes = field(default=b"")

    def lines(self, chunk: bytes) -> bytes:
        """Whole lines, each with the name; the part of one that has no end yet is kept (all at the end of output)."""
        *whole, self.rest = (self.rest + chunk).split(b"\n")
        if not chunk and self.rest:
            whole, self.rest = [*whole, self.rest], b""
        return b"".join(f"{self.name}| ".encode() + line + b"\n" for line in whole)


def run(jobs: Iterable[Job], at_once: float) -> dict[str, int]:
    """Each job's status by its name, in the order of their ends; at most so many run at a time, by their loads."""
    waiting, ended = list(jobs), {}
    with _children() as children, selectors.DefaultSelector() as selector:
        while waiting or children:
            while waiting and (load := sum(child.load for child in children.values())) < at_once:
                fits = next((job for job in waiting if load + job.load <= at_once), None)
                if fits is None:
                    break
                waiting.remove(fits)
                _start(fits, children, selector)
            for key, _ in selector.select():
                child = children[key.fd]
                chunk = os.read(key.fd, _CHUNK)
                sys.stdout.buffer.write(child.lines(chunk))
                sys.stdout.flush()
                if not chunk:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    del children[key.fd]
                    ended[child.name] = os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
    return ended


def reported(results: Path) -> str:
    """What pytest counted in a guest, as "14 passed, 1 skipped, 0 failed"; "no report" if it got not that far."""
    try:
        suite = next(ElementTree.parse(results / "junit.xml").getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError, StopIteration):
        return "no report"
    count = {name: int(suite.get(name, 0)) for name in ("tests", "skipped", "failures", "errors")}
    failed = count["failures"] + count["errors"]
    return f"{count['tests'] - failed - count['skipped']} passed, {count['skipped']} skipped, {failed} failed"


def _start(job: Job, children: dict[int, _Child], selector: selectors.BaseSelector) -> None:
    sys.stdout.flush()
    ours, its = os.pipe()
    if (pid := os.fork()) == 0:
        _be(job, its)
    os.close(its)
    selector.register(ours, selectors.EVENT_READ)
    children[ours] = _Child(job.name, pid, job.load)


def _be(job: Job, out: int) -> None:
    """The child: it ends with the job's status, whatever happens, and never returns into the parent's code."""
    status = 1
    try:
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.close(out)
        sys.stdout = sys.stderr = os.fdopen(1, "w", closefd=False)
        status = job.run()
    except SystemExit as reason:
        status = reason.code if isinstance(reason.code, int) else 1
    except BaseException:  # noqa: BLE001 - told, and the status says so
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(status & 0xFF)


@contextmanager
def _children() -> Iterator[dict[int, _Child]]:
    """Those that run, by the descriptor of their output. None of them outlives this."""
    children: dict[int, _Child] = {}
    try:
        yield children
    finally:
        for child in children.values():
            os.kill(child.pid, signal.SIGTERM)
        for child in children.values():
            os.waitpid(child.pid, 0)
