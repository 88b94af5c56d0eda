"""`brickyard user`."""

from __future__ import annotations

import sys
from typing import Any

import click

from agent.base.terminal.output import Record, Table, shown
from coordinator.cli.client.context import confirm, connected, destructive, found, planned
from coordinator.cli.client.session import Session

PATH = "/identity/v3/users"
PROJECTS = "/identity/v3/projects"
LISTED = ("id", "name", "enabled", "default_project_id", "description")


@click.group()
def user() -> None:
    """Users."""


def find(session: Session, name: str) -> dict[str, Any]:
    """The user with this name or id."""
    return found_in(session, "user", name)


def found_in(session: Session, noun: str, name: str) -> dict[str, Any]:
    """A user, project or role by name, else by id: ids of the identity service have no one form."""
    answer = session.get(f"/identity/v3/{noun}s", name=name)[f"{noun}s"]
    if len(answer) == 1:
        return dict(answer[0])
    return found(session, noun, f"/identity/v3/{noun}s", f"{noun}s", name)


def record(thing: dict[str, Any]) -> Record:
    return Record({key: value for key, value in thing.items() if key not in {"links", "options", "tags"}})


def password_from(stdin: bool) -> str:
    """A password typed twice, or the first line of standard input; it is never an argument."""
    if stdin:
        line = sys.stdin.readline(4096).rstrip("\n")
        if not line:
            raise click.UsageError("No password came on standard input.")
        return line
    if not sys.stdin.isatty():
        raise click.UsageError("There is no terminal to type a password on; give --password-stdin.")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))


password_option = click.option("--password-stdin", is_flag=True, help="Read it from standard input, not the terminal.")


@user.command("list")
@shown
@connected
def list_users(session: Session) -> Table:
    """List users."""
    return Table([dict(record(item).values) for item in session.get(PATH)["users"]], LISTED)


@user.command()
@click.argument("name")
@shown
@connected
def show(session: Session, name: str) -> Record:
    """Show the user NAME (or id)."""
    return record(find(session, name))


@user.command()
@click.argument("name")
@click.option("--project", help="Default project (name or id).")
@click.option("--description", help="Free text.")
@click.option("--email", help="Address.")
@password_option
@shown
@connected
def create(
    session: Session,
    *,
    name: str,
    project: str | None,
    description: str | None,
    email: str | None,
    password_stdin: bool,
) -> Record:
    """Create the user NAME. He may do nothing until he is given a role: brickyard role grant."""
    body: dict[str, Any] = {"name": name, "description": description, "email": email}
    if project is not None:
        body["default_project_id"] = found_in(session, "project", project)["id"]
    body["password"] = password_from(password_stdin)
    given = {key: value for key, value in body.items() if value is not None}
    return record(session.call("POST", PATH, {"user": given})["user"])


@user.command("set")
@click.argument("name")
@click.option("--name", "new_name", help="A new name.")
@click.option("--description", help="Free text.")
@click.option("--enable/--disable", "enabled", default=None, help="Whether he may log in.")
@click.option("--password", "with_password", is_flag=True, help="A new password; his tokens end.")
@password_option
@shown
@connected
def set_user(
    session: Session, *, name: str, new_name: str | None, description: str | None, enabled: bool | None,
    with_password: bool, password_stdin: bool,
) -> Record:  # fmt: skip
    """Change the user NAME (or id)."""
    body: dict[str, Any] = {"name": new_name, "description": description, "enabled": enabled}
    if with_password or password_stdin:
        body["password"] = password_from(password_stdin)
    changes = {key: value for key, value in body.items() if value is not None}
    return record(session.call("PATCH", f"{PATH}/{find(session, name)['id']}", {"user": changes})["user"])


@user.command()
@click.argument("names", nargs=-1, required=True)
@destructive
@shown
@connected
def delete(session: Session, names: tuple[str, ...], yes: bool, dry_run: bool) -> Table | None:
    """Delete the users NAMES (or ids)."""
    victims = [find(session, name) for name in names]
    if dry_run:
        return planned("delete user", victims, lambda item: "the user, and its roles in all projects")
    confirm(f"Delete {', '.join(item['name'] for item in victims)}?", yes)
    for item in victims:
        session.call("DELETE", f"{PATH}/{item['id']}")
    return None
