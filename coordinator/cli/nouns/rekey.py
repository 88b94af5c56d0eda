"""`brickyard volume rekey`."""

from __future__ import annotations

import click

from agent.base.terminal.output import Record, shown
from coordinator.cli.client.context import connected
from coordinator.cli.client.session import Session
from coordinator.cli.client.waiting import follow, wait_option
from coordinator.cli.nouns.volume import PATH, find, record


@click.command()
@click.argument("name")
@click.option("--master-key", is_flag=True, help="Write the content anew, under another master key; takes room for it.")
@wait_option
@shown
@connected
def rekey(session: Session, name: str, master_key: bool, wait: bool) -> Record:
    """Replace the key of the encrypted volume NAME (or id), which must be detached; the old one opens it no more."""
    volume_id = find(session, name)["id"]
    begun = session.call("POST", f"/brickyard/v1/volumes/{volume_id}/rekey", {"master_key": master_key})["operation"]
    if wait:
        follow(session, begun)
    return record(session.get(f"{PATH}/{volume_id}")["volume"])
