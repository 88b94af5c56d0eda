"""`brickyard issue|message|quota`."""

from __future__ import annotations

import click

from agent.base.terminal.output import Endless, Record, Table, shown
from coordinator.cli.client.context import connected, dry_run_option, found, planned
from coordinator.cli.client.session import Session
from coordinator.cli.client.waiting import frames, watch_option

ISSUES = ("id", "code", "resource_type", "resource_id", "host_id", "sentence", "remedy", "first_seen")
MESSAGES = ("id", "created_at", "message_level", "resource_type", "resource_uuid", "user_message")


@click.group()
def issue() -> None:
    """What is not as it should be, with a remedy."""


@issue.command("list")
@click.option("--closed", is_flag=True, help="Those that are over, too.")
@click.option("--resource", "resource_id", help="Only those of the resource with this id.")
@watch_option
@shown
@connected
def list_issues(session: Session, closed: bool, resource_id: str | None, watch: bool) -> Table | Endless:
    """List issues, the oldest first."""

    def read() -> Table:
        query = {"closed": "1" if closed else None, "resource_id": resource_id}
        return Table(list(session.pages("/brickyard/v1/issues", "issues", **query)), ISSUES)

    return frames(read) if watch else read()


@issue.command("show")
@click.argument("issue_id")
@shown
@connected
def show_issue(session: Session, issue_id: str) -> Record:
    """Show an issue with its details and remedy."""
    return Record(session.get(f"/brickyard/v1/issues/{issue_id}")["issue"])


@click.group()
def message() -> None:
    """Why something that you asked for did not come about."""


@message.command("list")
@shown
@connected
def list_messages(session: Session) -> Table:
    """List messages, the newest first."""
    return Table(list(session.pages("/v3/messages", "messages", sort="created_at:desc")), MESSAGES)


@message.command("show")
@click.argument("message_id")
@shown
@connected
def show_message(session: Session, message_id: str) -> Record:
    """Show a message."""
    return Record(session.get(f"/v3/messages/{message_id}")["message"])


@message.command("delete")
@click.argument("message_ids", nargs=-1, required=True)
@dry_run_option
@shown
@connected
def delete_messages(session: Session, message_ids: tuple[str, ...], dry_run: bool) -> Table | None:
    """Delete messages that were read."""
    if dry_run:
        there = [session.get(f"/v3/messages/{message_id}")["message"] for message_id in message_ids]
        return planned("delete message", there, lambda item: item["user_message"])
    for message_id in message_ids:
        session.call("DELETE", f"/v3/messages/{message_id}")
    return None


@click.group()
def quota() -> None:
    """What a project may use."""


def _project(session: Session, name: str | None) -> str:
    if name is None:
        own = session.own_project()
        if not own:
            raise click.UsageError("Name the project; these credentials are for none.")
        return own
    return str(found(session, "project", "/identity/v3/projects", "projects", name)["id"])


@quota.command("show")
@click.argument("project", required=False)
@shown
@connected
def show_quota(session: Session, project: str | None) -> Table:
    """Show limits and usage of PROJECT (name or id); default: your own."""
    answer = session.get(f"/v3/os-quota-sets/{_project(session, project)}", usage="True")["quota_set"]
    rows = [{"resource": name, **values} for name, values in answer.items() if isinstance(values, dict)]
    return Table(rows, ("resource", "limit", "in_use", "reserved"))


@quota.command("set")
@click.argument("project")
@click.argument("limits", nargs=-1, required=True, metavar="RESOURCE=LIMIT...")
@click.option("--force", is_flag=True, help="Also below what is in use: that stays, and nothing more can be made.")
@shown
@connected
def set_quota(session: Session, project: str, limits: tuple[str, ...], *, force: bool) -> Table:
    """Set limits of PROJECT (name or id); -1 means none. Example: volumes=100 gigabytes=5000"""
    wanted = {}
    for item in limits:
        name, equals, value = item.partition("=")
        if not equals or not value.removeprefix("-").isdecimal():
            raise click.UsageError(f"{item!r} is not of the form RESOURCE=LIMIT.")
        wanted[name] = int(value)
    path = f"/v3/os-quota-sets/{_project(session, project)}"
    answer = session.call("PUT", path, {"quota_set": wanted}, skip_validation=str(force))["quota_set"]
    return Table([{"resource": name, "limit": limit} for name, limit in answer.items()], ("resource", "limit"))
