"""`brickyard site`."""

from __future__ import annotations

import click

from agent.base.terminal.output import Record, shown
from coordinator.cli.client.context import connected
from coordinator.cli.client.session import Session

PATH = "/brickyard/v1/read-only"


@click.group()
def site() -> None:
    """The site as a whole."""


@site.command()
@shown
@connected
def show(session: Session) -> Record:
    """Show whether the site is read-only, since when and why."""
    return Record(session.get(PATH)["read_only"])


@site.command("read-only")
@click.option("--reason", required=True, help="Told to everybody whose call is refused.")
@shown
@connected
def read_only(session: Session, reason: str) -> Record:
    """Refuse all calls that change something, attaching too, on every coordinator; work accepted before goes on."""
    return Record(session.call("PUT", PATH, {"reason": reason})["read_only"])


@site.command("read-write")
@shown
@connected
def read_write(session: Session) -> None:
    """Let the site be changed again."""
    session.call("DELETE", PATH)
