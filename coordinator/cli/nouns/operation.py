"""`brickyard operation`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from agent.base.terminal.output import Endless, Record, Table, for_people, form, shown
from coordinator.cli.client.context import confirm, connected, destructive, planned
from coordinator.cli.client.session import Session
from coordinator.cli.client.waiting import follow, frames, wait_option, watch_option, watched, words

PATH = "/brickyard/v1/operations"
LISTED = ("id", "kind", "resource_type", "resource_id", "state", "now", "created_at")


@click.group()
def operation() -> None:
    """The durable work on resources."""


def _row(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "now": words(found)}


def _get(session: Session, operation_id: str) -> dict[str, Any]:
    return dict(session.get(f"{PATH}/{operation_id}")["operation"])


@operation.command("list")
@click.option("--active", is_flag=True, help="Only those that have not ended.")
@click.option("--resource", "resource_id", help="Only those on the resource with this id.")
@click.option("--state", help="Only those in this state.")
@click.option("--all-projects", is_flag=True, help="Those of every project (administrators).")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most as many.")
@watch_option
@shown
@connected
def list_operations(
    session: Session, *, active: bool, resource_id: str | None, state: str | None, all_projects: bool, limit: int,
    watch: bool,
) -> Table | Endless:  # fmt: skip
    """List operations, the newest first."""
    query = {
        "active": "1" if active else None, "resource_id": resource_id, "state": state, "limit": limit,
        "all_projects": "1" if all_projects else None,
    }  # fmt: skip

    def read() -> Table:
        return Table([_row(found) for found in session.get(PATH, **query)["operations"]], LISTED)

    return frames(read) if watch else read()


@operation.command()
@click.argument("operation_id")
@shown
@connected
def show(session: Session, operation_id: str) -> Record:
    """Show an operation: its steps, how far it is, what it waits for, why it failed."""
    return Record(_row(_get(session, operation_id)))


@operation.command()
@click.argument("operation_id")
@shown
@connected
def watch(session: Session, operation_id: str) -> Record | Iterator[Record]:
    """Follow an operation to its end; JSON gives a line for each change."""
    if form() in {"json", "ndjson"}:
        return (Record(_row(found)) for found in watched(session, operation_id))
    ended = follow(session, _get(session, operation_id))
    return Record(_row(ended), () if for_people() else LISTED)


@operation.command()
@click.argument("operation_id")
@wait_option
@destructive
@shown
@connected
def cancel(session: Session, operation_id: str, wait: bool, yes: bool, dry_run: bool) -> Record | Table:
    """Cancel an operation; what it did is undone."""
    if dry_run:
        found = session.get(f"{PATH}/{operation_id}")["operation"]
        return planned("cancel", [found], lambda item: f"what {item['kind']} has done so far")
    confirm(f"Cancel {operation_id}?", yes)
    found = session.call("POST", f"{PATH}/{operation_id}/cancel")["operation"]
    if wait:
        *_, found = watched(session, operation_id)
    return Record(_row(found), LISTED)


@operation.command()
@click.argument("operation_id")
@wait_option
@shown
@connected
def retry(session: Session, operation_id: str, wait: bool) -> Record:
    """Try the undo of an operation again that had been given up."""
    found = session.call("POST", f"{PATH}/{operation_id}/retry")["operation"]
    if wait:
        *_, found = watched(session, operation_id)
    return Record(_row(found), LISTED)
