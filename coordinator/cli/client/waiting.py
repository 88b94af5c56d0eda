"""Following an operation to its end, with progress on stderr: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from agent.base.terminal.output import Endless, Table, form
from agent.base.terminal.sizes import duration, size
from coordinator.cli.client.errors import of_body
from coordinator.cli.client.session import Session

ACTIVE = frozenset({"running", "undoing"})
_POLL_S = 20
_LINE_EVERY_S = 3.0
_PATH = "/brickyard/v1/operations"
Tell = Callable[[dict[str, Any]], None]

wait_option = click.option("--wait", is_flag=True, help="Wait for the end, showing progress.")


def watched(session: Session, operation_id: str) -> Iterator[dict[str, Any]]:
    """The operation at each change, until it has ended; the last one is the ended one."""
    operation = session.get(f"{_PATH}/{operation_id}")["operation"]
    yield operation
    while operation["state"] in ACTIVE:
        asked = {"wait": _POLL_S, "after": operation["seq"]}
        operation = session.get(f"{_PATH}/{operation_id}", **asked)["operation"]
        yield operation


def follow(session: Session, operation: dict[str, Any]) -> dict[str, Any]:
    """Show progress until the end; returns the ended operation. Raises what it failed with."""
    last = operation
    try:
        with _telling(operation["kind"]) as tell:
            for last in watched(session, operation["id"]):
                tell(last)
    except KeyboardInterrupt:
        sys.stderr.write(f"The work goes on. To watch it: brickyard operation watch {operation['id']}\n")
        raise
    if last["state"] != "done":
        error = dict(last["error"] or {})
        error.setdefault("message", f"The operation {last['id']} ended as {last['state']}.")
        error.setdefault("code", f"operation.{last['state']}")
        raise of_body(error)
    return last


def follow_resource(session: Session, resource_id: str) -> None:
    """Follow the newest operation on a resource, if there is one."""
    found = session.get(_PATH, resource_id=resource_id, limit=1)["operations"]
    if found:
        follow(session, found[0])


@contextmanager
def _telling(kind: str) -> Iterator[Tell]:
    if form() in {"json", "ndjson"}:
        yield lambda _operation: None
    elif sys.stderr.isatty():
        with _bar(kind) as tell:
            yield tell
    else:
        yield _lines(kind)


def _lines(kind: str) -> Tell:
    told: list[Any] = ["", 0.0]

    def tell(operation: dict[str, Any]) -> None:
        line, now = f"{kind}: {words(operation)}", time.monotonic()
        ended = operation["state"] not in ACTIVE
        if line != told[0] and (ended or now - told[1] >= _LINE_EVERY_S):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
            told[:] = [line, now]

    return tell


def words(operation: dict[str, Any]) -> str:
    """Where an operation stands, in one line."""
    progress, state = operation.get("progress") or {}, operation["state"]
    if state not in ACTIVE:
        return str(state)
    parts = [str(operation.get("waiting") or progress.get("phase") or operation.get("step") or state)]
    if progress.get("total"):
        parts.append(f"{size(progress.get('done', 0))} of {size(progress['total'])}")
    elif progress.get("done"):
        parts.append(size(progress["done"]))
    if progress.get("rate"):
        parts.append(f"{size(progress['rate'])}/s")
    if progress.get("eta_s") is not None:
        parts.append(f"{duration(progress['eta_s'])} left")
    return ", ".join(parts)


@contextmanager
def _bar(kind: str) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    bar = Progress(
        SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn(), console=Console(stderr=True), transient=True,
    )  # fmt: skip
    with bar:
        task = bar.add_task(kind, total=None)

        def tell(operation: dict[str, Any]) -> None:
            progress = operation.get("progress") or {}
            total = progress.get("total") or None
            bar.update(task, description=f"{kind}: {words(operation)}", total=total, completed=progress.get("done", 0))

        yield tell


@contextmanager
def transfer(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Progress of bytes that this process moves; call with the number of bytes so far."""
    began = time.monotonic()

    def told(done: int) -> dict[str, Any]:
        rate = done / max(time.monotonic() - began, 1e-3)
        left = (total - done) / rate if total and rate else None
        progress = {"phase": what, "done": done, "total": total or 0, "rate": rate, "eta_s": left}
        return {"state": "running", "progress": progress}

    with _telling(what) as tell:
        yield lambda done: tell(told(done))


def frames(make: Callable[[], Table], every_s: float = 2.0) -> Endless:
    """What `make()` gives, anew every few seconds until Ctrl-C."""

    def endless() -> Iterator[Table]:
        from threading import Event

        never = Event()
        while True:
            yield make()
            never.wait(every_s)

    return Endless(endless())


watch_option = click.option("--watch", is_flag=True, help="Show the list anew every two seconds, until Ctrl-C.")
