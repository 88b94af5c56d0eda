"""`brickyard volume rekey`."""

from __future__ import annotations

from typing import Any

import click

from agent.base.terminal.output import Record, Table, shown
from coordinator.cli.client.context import connected, dry_run_option, planned
from coordinator.cli.client.session import Session
from coordinator.cli.client.waiting import follow, wait_option
from coordinator.cli.nouns.volume import PATH, find, record


@click.command()
@click.argument("name")
@click.option("--master-key", is_flag=True, help="Write the content anew, under another master key; takes room for it.")
@dry_run_option
@wait_option
@shown
@connected
def rekey(session: Session, name: str, master_key: bool, wait: bool, dry_run: bool) -> Record | Table:
    """Replace the key of the encrypted volume NAME (or id), which must be detached; the old one opens it no more."""
    volume = find(session, name)
    if dry_run:
        lost = "the key that it has: headers kept aside open it no more"
        if master_key:
            lost += ", and whoever knows its master key can read what is written from now on no more"
        return planned("rekey volume", [{**volume, "refused": _refused(session, volume)}], lambda _: lost)
    volume_id = volume["id"]
    begun = session.call("POST", f"/brickyard/v1/volumes/{volume_id}/rekey", {"master_key": master_key})["operation"]
    if wait:
        follow(session, begun)
    return record(session.get(f"{PATH}/{volume_id}")["volume"])


def _refused(session: Session, volume: dict[str, Any]) -> str | None:
    if not volume["encrypted"]:
        return "it is not encrypted"
    if volume["status"] != "available":
        return f"it is {volume['status']}"
    taken = [item["name"] or item["id"] for item in session.pages("/v3/snapshots", "snapshots", volume_id=volume["id"])]
    return f"it has snapshots {', '.join(taken)}, which need its header as it is" if taken else None
