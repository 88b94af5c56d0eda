"""`brickyard volume forget`."""

from __future__ import annotations

import click

from agent.base.terminal.output import Record, Table, emit, form, shown
from coordinator.cli.client.context import confirm, connected, yes_option
from coordinator.cli.client.session import Session
from coordinator.cli.nouns.volume import find


@click.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only show what would end.")
@click.option("--operator-says", metavar="WORDS", help="Why the data are gone, on your own word, which is kept.")
@click.option("--force", is_flag=True, help="End its attachments too, without a word to who holds them.")
@yes_option
@shown
@connected
def forget(
    session: Session, *, name: str, dry_run: bool, operator_says: str | None, force: bool, yes: bool
) -> Record | None:
    """Drop the rows of the volume NAME (or id), whose storage is gone for good; its snapshots go along.

    No host is asked for anything. Where a whole host is gone, evict it; then its volumes can simply be deleted.
    """
    path = f"/brickyard/v1/volumes/{find(session, name)['id']}/forget"
    found = session.call("POST", path, {"dry_run": True})["forgotten"]
    if not dry_run:
        told = [f"{part['count']} {part['what']}: {part['fate']}." for part in found["parts"]]
        confirm(f"Forget {name}? " + " ".join(told), yes)
        body: dict[str, object] = {"dry_run": False, "force": force}
        if operator_says is not None:
            body["words"] = operator_says
        found = session.call("POST", path, body)["forgotten"]
    if form() in {"json", "ndjson"}:
        return Record(found)
    emit(Table(found["parts"], ("what", "count", "fate")), form())
    return None
