"""`brickyard attachment`."""

from __future__ import annotations

import click

from agent.base.terminal.output import Endless, Record, Table, shown
from coordinator.cli.client.context import confirm, connected, destructive, planned
from coordinator.cli.client.session import Session
from coordinator.cli.client.waiting import follow, frames, wait_option, watch_option
from coordinator.cli.nouns.volume import attach_to, lost_access
from coordinator.cli.nouns.volume import find as find_volume

PATH = "/brickyard/v1/attachments"
LISTED = ("id", "volume_id", "host_id", "transport", "mode", "status", "path", "attention")


@click.group()
def attachment() -> None:
    """Attachments of volumes to hosts."""


@attachment.command("list")
@click.option("--volume", "volume_name", help="Only those of this volume.")
@click.option("--host", help="Only those on this host.")
@click.option("--all-projects", is_flag=True, help="Those of every project (administrators).")
@watch_option
@shown
@connected
def list_attachments(
    session: Session, volume_name: str | None, host: str | None, all_projects: bool, watch: bool
) -> Table | Endless:
    """List attachments to hosts."""
    of = find_volume(session, volume_name)["id"] if volume_name else None
    query = {"volume_id": of, "host_id": host, "all_projects": "1" if all_projects else None}

    def read() -> Table:
        found = session.pages(PATH, "attachments", **query)
        return Table([{**row, "path": (row["device"] or {}).get("device")} for row in found], LISTED)

    return frames(read) if watch else read()


@attachment.command()
@click.argument("attachment_id")
@shown
@connected
def show(session: Session, attachment_id: str) -> Record:
    """Show an attachment, with the device that it gives on its host."""
    return Record(session.get(f"{PATH}/{attachment_id}")["attachment"])


@attachment.command()
@click.argument("volume_name", metavar="VOLUME")
@click.option("--host", required=True, help="Host to attach it to.")
@click.option("--mode", type=click.Choice(["rw", "ro"]), default="rw", show_default=True, help="May it be written?")
@wait_option
@shown
@connected
def create(session: Session, volume_name: str, host: str, mode: str, wait: bool) -> Record:
    """Attach VOLUME (name or id) to a host."""
    return attach_to(session, volume_name, host, mode, wait)


@attachment.command()
@click.argument("attachment_ids", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Cut off whoever has it open: what they write then is lost.")
@wait_option
@destructive
@shown
@connected
def delete(
    session: Session, *, attachment_ids: tuple[str, ...], force: bool, wait: bool, yes: bool, dry_run: bool
) -> Table | None:
    """End attachments; the host's word that nothing is left is waited for."""
    if dry_run:
        there = [session.get(f"{PATH}/{attachment_id}")["attachment"] for attachment_id in attachment_ids]
        return planned("detach", there, lost_access)
    confirm(f"Detach {', '.join(attachment_ids)}{', and cut off whoever has it open' if force else ''}?", yes)
    forced = "?force=true" if force else ""
    begun = [session.call("DELETE", f"{PATH}/{attachment_id}{forced}")["operation"] for attachment_id in attachment_ids]
    for operation in begun if wait else ():
        follow(session, operation)
    return None
