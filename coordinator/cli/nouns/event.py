"""`brickyard event`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import click

from agent.base.terminal.output import Endless, Record, Table, form, shown
from coordinator.cli.client.context import connected
from coordinator.cli.client.session import Session

PATH = "/brickyard/v1/events"
LISTED = ("seq", "at", "type", "resource_type", "resource_id", "request_id")
_WAIT_S, _KEPT = 25, 30


@click.group()
def event() -> None:
    """What happened, in order."""


@event.command("list")
@click.option("--after", type=click.IntRange(0), default=0, show_default=True, help="Those after this number.")
@click.option("--type", "type_", help="Only those of this type, for example create_volume.end.")
@click.option("--resource", "resource_id", help="Only those of the resource with this id.")
@click.option("--all-projects", is_flag=True, help="Those of every project (administrators).")
@click.option("--limit", type=click.IntRange(1, 1000), default=1000, show_default=True, help="At most as many.")
@click.option("--watch", is_flag=True, help="Go on with what happens from now on, until Ctrl-C; ndjson: a line each.")
@shown
@connected
def list_events(
    session: Session, *, after: int, type_: str | None, resource_id: str | None, all_projects: bool, limit: int,
    watch: bool,
) -> Table | Endless:  # fmt: skip
    """List events, the oldest first."""
    query = {"type": type_, "resource_id": resource_id, "all_projects": "1" if all_projects else None, "limit": limit}
    if not watch:
        return Table(_page(session, after=after, **query)["events"], LISTED)
    return Endless(_followed(session, after, query))


def _page(session: Session, **query: Any) -> dict[str, Any]:
    """The answer; whoever reads on after a long time is told that some are gone."""
    answer: dict[str, Any] = session.get(PATH, **query)
    if answer.get("missed"):
        click.echo(f"Some events after {query['after']} were dropped for their age.", err=True)
    return answer


def _followed(session: Session, after: int, query: dict[str, Any]) -> Iterator[Table | Record]:
    """Every event alone for programs; for people the last ones, anew with each that comes."""
    latest: deque[dict[str, Any]] = deque(maxlen=_KEPT)
    apart = form() in {"json", "ndjson", "value"}
    while True:
        answer = _page(session, after=after, wait=_WAIT_S, **query)
        after = answer["next_after"]
        if apart:
            yield from (Record(found) for found in answer["events"])
        elif answer["events"]:
            latest.extend(answer["events"])
            yield Table(list(latest), LISTED)
