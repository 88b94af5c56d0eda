"""`brickyard service`."""

from __future__ import annotations

import click

from agent.base.terminal.output import Endless, Record, Table, form, shown
from coordinator.cli.client.context import confirm, connected, destructive, planned
from coordinator.cli.client.session import Session
from coordinator.cli.client.waiting import frames, watch_option

SERVICES = ("binary", "host", "zone", "status", "state", "backend_state", "updated_at", "disabled_reason")
PATH = "/v3/os-services"
_BINARY = click.option("--binary", default="", help="Only cinder-api (the coordinator) or cinder-volume (agents).")
_HOST = click.option("--host", default="", help="Only this host's.")


@click.group()
def service() -> None:
    """The services of the site."""


@service.command("list")
@watch_option
@shown
@connected
def list_services(session: Session, watch: bool) -> Table | Endless:
    """List the coordinator and the back ends of all hosts."""

    def read() -> Table:
        return Table(session.get(PATH)["services"], SERVICES)

    return frames(read) if watch else read()


@service.command()
@click.argument("name", metavar="HOST[@BACKEND]")
@destructive
@shown
@connected
def freeze(session: Session, name: str, yes: bool, dry_run: bool) -> Table | None:
    """Let what lies on a back end stay as it is: nothing is made, changed or deleted. Attaching goes on."""
    if dry_run:
        return planned("freeze", [{"id": name}], lambda item: "making, changing and deleting there, until it is thawed")
    confirm(f"Freeze {name}?", yes)
    session.call("PUT", f"{PATH}/freeze", {"host": name})
    return None


@service.command()
@click.argument("name", metavar="HOST[@BACKEND]")
@shown
@connected
def thaw(session: Session, name: str) -> None:
    """Let a frozen back end be changed again, and take new volumes."""
    session.call("PUT", f"{PATH}/thaw", {"host": name})


@service.command("log-level")
@click.argument("level", required=False, type=click.Choice(("debug", "info", "warning", "error")))
@_HOST
@_BINARY
@click.option("--prefix", default="", help="Only loggers whose name begins so, for example agent.jobs.")
@shown
@connected
def log_level(session: Session, level: str | None, host: str, binary: str, prefix: str) -> Table | None:
    """Show the levels of loggers, or set them to LEVEL until the process ends."""
    asked = {"server": host, "binary": binary, "prefix": prefix}
    if level is not None:
        session.call("PUT", f"{PATH}/set-log", {**asked, "level": level})
        return None
    rows = [
        {"binary": each["binary"], "host": each["host"], "logger": name, "level": found}
        for each in session.call("PUT", f"{PATH}/get-log", asked)["log_levels"]
        for name, found in each["levels"].items()
    ]
    return Table(rows, ("host", "binary", "logger", "level"))


@service.command("report")
@click.argument("host", required=False)
@shown
@connected
def state_report(session: Session, host: str | None) -> Record | None:
    """Show what the threads and tasks of the coordinator, or of the agent of HOST, are doing."""
    found = session.get("/brickyard/v1/state-report", host=host)["report"]
    if form() in {"json", "ndjson"}:
        return Record(found)
    click.echo(found["text"])
    return None
