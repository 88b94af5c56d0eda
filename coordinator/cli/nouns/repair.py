"""`brickyard volume repair`."""

from __future__ import annotations

import click

from agent.base.terminal.output import Record, Table, emit, form, shown
from coordinator.cli.client.context import confirm, connected, yes_option
from coordinator.cli.client.session import Session
from coordinator.cli.client.waiting import follow, wait_option
from coordinator.cli.nouns.volume import find


@click.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only show what differs, and the plan.")
@wait_option
@yes_option
@shown
@connected
def repair(session: Session, name: str, dry_run: bool, wait: bool, yes: bool) -> Record | None:
    """Compare what the site, the back end and the host say of the volume NAME (or id), and make it agree.

    Data is never deleted. What is not safe to do by itself is told, with the reason.
    """
    path = f"/brickyard/v1/volumes/{find(session, name)['id']}/repair"
    found = session.call("POST", path, {"dry_run": True})["repair"]
    safe = [action["sentence"] for action in found["plan"] if action["safe"]]
    if not dry_run and safe:
        confirm("Do this? " + " ".join(safe), yes)
        found = session.call("POST", path, {"dry_run": False})["repair"]
        if wait and found["operation"] is not None:
            follow(session, found["operation"])
    if form() in {"json", "ndjson"}:
        return Record(found)
    done = [action["sentence"] for action in found["done"]]
    rows = [{**action, "done": action["sentence"] in done} for action in found["plan"]]
    if found["agrees"] and not rows:
        rows = [{"sentence": "Site, back end and host agree.", "safe": True, "done": True}]
    emit(Table(rows, ("sentence", "safe", "done")), form())
    return None
