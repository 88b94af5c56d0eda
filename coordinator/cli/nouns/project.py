"""`brickyard project`."""

from __future__ import annotations

from typing import Any

import click

from agent.base.terminal.output import Record, Table, shown
from coordinator.cli.client.context import confirm, connected, destructive, planned
from coordinator.cli.client.session import Session
from coordinator.cli.nouns.user import PROJECTS as PATH
from coordinator.cli.nouns.user import found_in, record

LISTED = ("id", "name", "enabled", "description")


@click.group()
def project() -> None:
    """Projects."""


@project.command("list")
@click.option("--mine", is_flag=True, help="Those that you have a role in.")
@shown
@connected
def list_projects(session: Session, mine: bool) -> Table:
    """List projects."""
    answer = session.get("/identity/v3/auth/projects" if mine else PATH)
    return Table([dict(record(item).values) for item in answer["projects"]], LISTED)


@project.command()
@click.argument("name")
@shown
@connected
def show(session: Session, name: str) -> Record:
    """Show the project NAME (or id)."""
    return record(found_in(session, "project", name))


@project.command()
@click.argument("name")
@click.option("--description", help="Free text.")
@shown
@connected
def create(session: Session, name: str, description: str | None) -> Record:
    """Create the project NAME."""
    body: dict[str, Any] = {"name": name, "description": description or ""}
    return record(session.call("POST", PATH, {"project": body})["project"])


@project.command("set")
@click.argument("name")
@click.option("--name", "new_name", help="A new name.")
@click.option("--description", help="Free text.")
@click.option("--enable/--disable", "enabled", default=None, help="Whether it may be used.")
@shown
@connected
def set_project(
    session: Session, name: str, new_name: str | None, description: str | None, enabled: bool | None
) -> Record:
    """Change the project NAME (or id)."""
    body = {"name": new_name, "description": description, "enabled": enabled}
    changes = {key: value for key, value in body.items() if value is not None}
    wanted = found_in(session, "project", name)["id"]
    return record(session.call("PATCH", f"{PATH}/{wanted}", {"project": changes})["project"])


@project.command()
@click.argument("names", nargs=-1, required=True)
@destructive
@shown
@connected
def delete(session: Session, names: tuple[str, ...], yes: bool, dry_run: bool) -> Table | None:
    """Delete the projects NAMES (or ids)."""
    victims = [found_in(session, "project", name) for name in names]
    if dry_run:
        return planned("delete project", victims, lambda item: "the project, and its users' access to what it has")
    confirm(f"Delete {', '.join(item['name'] for item in victims)}?", yes)
    for item in victims:
        session.call("DELETE", f"{PATH}/{item['id']}")
    return None
