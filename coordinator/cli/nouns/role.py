"""`brickyard role`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from agent.base.terminal.output import Table, shown
from coordinator.cli.client.context import connected, dry_run_option, planned
from coordinator.cli.client.session import Session
from coordinator.cli.nouns.user import found_in

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def role() -> None:
    """Roles, and who has which where."""


def target(function: F) -> F:
    """Options that name a user and what his role is on."""
    for option in (
        click.option("--system", is_flag=True, help="On the whole site."),
        click.option("--project", help="On this project (name or id)."),
        click.option("--user", required=True, help="User (name or id)."),
    ):
        function = option(function)
    return function


@role.command("list")
@shown
@connected
def list_roles(session: Session) -> Table:
    """List roles."""
    found = session.get("/identity/v3/roles")["roles"]
    rows = [{key: item[key] for key in ("id", "name", "description")} for item in found]
    return Table(rows, ("id", "name", "description"))


@role.command()
@click.argument("name")
@target
@shown
@connected
def grant(session: Session, name: str, user: str, project: str | None, system: bool) -> None:
    """Give the role NAME to a user."""
    session.call("PUT", _path(session, name, user, project, system))


@role.command()
@click.argument("name")
@target
@dry_run_option
@shown
@connected
def revoke(session: Session, *, name: str, user: str, project: str | None, system: bool, dry_run: bool) -> Table | None:
    """Take the role NAME from a user."""
    path = _path(session, name, user, project, system)
    if dry_run:
        where = "the whole site" if system else f"the project {project}"
        given = session.get(path.rpartition("/")[0])["roles"]
        item = {**found_in(session, "role", name), "refused": f"{user} has not this role there"}
        if any(one["id"] == item["id"] for one in given):
            item["refused"] = None
        return planned("revoke role", [item], lambda _: f"what {user} may do by it on {where}")
    session.call("DELETE", path)
    return None


@role.command()
@click.option("--user", help="Only those of this user (name or id).")
@click.option("--project", help="Only those on this project (name or id).")
@shown
@connected
def assignments(session: Session, user: str | None, project: str | None) -> Table:
    """List who has which role where."""
    query = {
        "include_names": "1",
        "user.id": found_in(session, "user", user)["id"] if user else None,
        "scope.project.id": found_in(session, "project", project)["id"] if project else None,
    }
    rows = []
    for item in session.get("/identity/v3/role_assignments", **query)["role_assignments"]:
        scope = item.get("scope", {})
        kind = next(iter(scope), "")
        where = scope[kind].get("name") or scope[kind].get("id") or "all" if kind else ""
        names = {part: item[part].get("name") or item[part]["id"] for part in ("user", "role")}
        rows.append({**names, "scope": kind, "on": where})
    return Table(rows, ("user", "role", "scope", "on"))


def _path(session: Session, name: str, user: str, project: str | None, system: bool) -> str:
    if (project is None) == (not system):
        raise click.UsageError("Give either --project or --system.")
    where = "system" if system else f"projects/{found_in(session, 'project', project or '')['id']}"
    ids = f"users/{found_in(session, 'user', user)['id']}/roles/{found_in(session, 'role', name)['id']}"
    return f"/identity/v3/{where}/{ids}"
