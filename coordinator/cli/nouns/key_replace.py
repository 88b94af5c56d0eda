"""`brickyard key replace`: volumes that one key opens get keys of their own."""

from __future__ import annotations

from typing import Any

import click

from agent.base.errors import BrickyardError
from agent.base.terminal.output import Record, Table, shown
from coordinator.cli.client.context import chosen, confirm, connected, destructive, planned
from coordinator.cli.client.session import Session
from coordinator.cli.client.waiting import follow
from coordinator.cli.nouns.key import PATH

_LEFT = 1


@click.command()
@click.argument("name")
@destructive
@shown
@connected
def replace(session: Session, name: str, yes: bool, dry_run: bool) -> Record | Table:
    """Give every volume, of any project, that the key NAME (or id) opens a key of its own, which it opens no more.

    What is attached or has snapshots is left and told, and so is a volume whose own secret can not be read; run it
    again later. Exit code 1 while any is left.
    """
    key_id = chosen(session.pages(PATH, "keys"), "key", name)["id"]
    found = [{**one, "refused": _refused(one)} for one in session.pages(f"{PATH}/{key_id}/volumes", "volumes")]
    if dry_run:
        return planned("replace key", found, lambda _: "the key that it has: headers kept aside open it no more")
    if count := sum(one["refused"] is None for one in found):
        confirm(f"Replace the keys of {count} volumes?", yes)
    told = [{name: one[name] for name in ("id", "name", "project_id")} | _replaced(session, one) for one in found]
    left = sum(one["left"] is not None for one in told)
    values = {"replaced": len(told) - left, "left": left, "volumes": told}
    return Record(values, value="left", exit_code=_LEFT if left else 0)


def _refused(one: dict[str, Any]) -> str | None:
    if one["key"] != "opens":
        return f"its secret {one['key_id']} is {one['key']}, so that none can be put in its place; restore it first"
    if one["snapshots"]:
        return f"it has {one['snapshots']} snapshots, which need its header as it is"
    return None if one["status"] == "available" else f"it is {one['status']}"


def _replaced(session: Session, one: dict[str, Any]) -> dict[str, Any]:
    """One refusal does not keep the others."""
    if one["refused"] is not None:
        return {"left": one["refused"]}
    try:
        follow(session, session.call("POST", f"/brickyard/v1/volumes/{one['id']}/rekey", {})["operation"])
    except BrickyardError as error:
        return {"left": str(error)}
    return {"left": None}
