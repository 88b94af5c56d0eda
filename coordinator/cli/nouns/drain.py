"""`brickyard host drain`."""

from __future__ import annotations

import sys
import time
from threading import Event
from typing import Any

import click

from agent.base.terminal.output import Record, Table, emit, form, shown
from coordinator.cli.client.context import connected
from coordinator.cli.client.errors import EnabledMeanwhile, NotQuiet
from coordinator.cli.client.session import Session
from coordinator.cli.client.waiting import words

_LOOK_S = 1.0
_TELL_S = 3.0


@click.command()
@click.argument("name")
@click.option("--reason", help="Told to those who look, and to those whose work waits.")
@click.option("--dry-run", is_flag=True, help="Change nothing; only show what is at work and what depends on it.")
@click.option("--wait", is_flag=True, help="Wait until nothing is at work there, showing progress.")
@click.option("--timeout", type=click.FloatRange(min=0), help="With --wait: give up waiting after so many seconds.")
@shown
@connected
def drain(
    session: Session, *, name: str, reason: str | None, dry_run: bool, wait: bool, timeout: float | None
) -> Record | None:
    """Take the host NAME out of use for maintenance: nothing is placed or begun there any more.

    What is at work there goes on to its end, and so do deletes and detaches; all other work waits until the host is
    enabled again (brickyard host enable). What still depends on it is shown.
    """
    path = f"/brickyard/v1/hosts/{name}/drain"
    if dry_run and (wait or reason is not None):
        raise click.UsageError("With --dry-run nothing is changed and nothing is waited for.")
    found = session.get(path)["drain"] if dry_run else session.call("POST", path, {"reason": reason})["drain"]
    if wait:
        found = _until_quiet(session, path, found, timeout)
    if form() in {"json", "ndjson"}:
        return Record(found)
    rows = [_row("at work", each) for each in found["working"]] + [_row("waits", each) for each in found["waiting"]]
    rows += [{"what": left["what"], "count": left["count"], "means": left["means"]} for left in found["left"]]
    emit(Table(rows, ("what", "count", "means")), form())
    if not dry_run:
        click.echo(_where(name, found), err=True)
    return None


def _row(what: str, operation: dict[str, Any]) -> dict[str, Any]:
    about = f"{operation['kind']} of {operation['resource_type']} {operation['resource_id']}"
    return {"what": what, "count": 1, "means": f"{about}: {words(operation)}"}


def _where(name: str, found: dict[str, Any]) -> str:
    if found["quiet"]:
        return f"Nothing is at work on host {name}. When it is ready again: brickyard host enable {name}"
    return f"{found['working_count']} operations are at work on host {name}. To wait for them: --wait"


def _until_quiet(session: Session, path: str, found: dict[str, Any], timeout: float | None) -> dict[str, Any]:
    """Raises an error that names what is still at work when the time is over, or the host was enabled meanwhile."""
    began, told, never = time.monotonic(), float("-inf"), Event()
    while not found["quiet"]:
        now = time.monotonic()
        if found["drained_at"] is None:
            raise EnabledMeanwhile(host=found["host_id"])
        if timeout is not None and now - began >= timeout:
            still = ", ".join(f"{each['kind']} {each['id']}" for each in found["working"]) or "what began before"
            raise NotQuiet(host=found["host_id"], seconds=f"{timeout:g}", still=still)
        if form() not in {"json", "ndjson"} and now - told >= _TELL_S:
            told = now
            for each in found["working"]:
                sys.stderr.write(f"{each['kind']} {each['resource_id']}: {words(each)}\n")
            sys.stderr.flush()
        never.wait(_LOOK_S)
        found = session.get(path)["drain"]
    return found
