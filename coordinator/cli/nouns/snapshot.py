"""`brickyard snapshot`."""

from __future__ import annotations

from typing import Any

import click

from agent.base.terminal.output import Endless, Record, Table, shown
from coordinator.cli.client.context import confirm, connected, destructive, found, planned
from coordinator.cli.client.session import Session
from coordinator.cli.client.waiting import follow_resource, frames, wait_option, watch_option
from coordinator.cli.nouns.volume import find as find_volume

PATH = "/v3/snapshots"
LISTED = ("id", "name", "status", "size", "volume_id", "created_at")


@click.group()
def snapshot() -> None:
    """Snapshots of volumes."""


def _find(session: Session, name: str) -> dict[str, Any]:
    return found(session, "snapshot", PATH, "snapshots", name)


@snapshot.command("list")
@click.option("--volume", "volume_name", help="Only snapshots of this volume.")
@click.option("--all-projects", is_flag=True, help="Snapshots of every project (administrators).")
@watch_option
@shown
@connected
def list_snapshots(session: Session, volume_name: str | None, all_projects: bool, watch: bool) -> Table | Endless:
    """List snapshots."""
    of = find_volume(session, volume_name)["id"] if volume_name else None

    def read() -> Table:
        rows = session.pages(f"{PATH}/detail", "snapshots", volume_id=of, all_tenants="1" if all_projects else None)
        return Table(list(rows), LISTED)

    return frames(read) if watch else read()


@snapshot.command()
@click.argument("name")
@shown
@connected
def show(session: Session, name: str) -> Record:
    """Show the snapshot NAME (or id)."""
    return Record(_find(session, name))


@snapshot.command()
@click.argument("volume_name", metavar="VOLUME")
@click.argument("name", required=False)
@click.option("--description", help="Free text.")
@wait_option
@shown
@connected
def create(session: Session, volume_name: str, name: str | None, description: str | None, wait: bool) -> Record:
    """Take a snapshot of VOLUME (name or id), called NAME."""
    body = {"volume_id": find_volume(session, volume_name)["id"], "name": name, "description": description}
    made = session.call("POST", PATH, {"snapshot": body})["snapshot"]
    if wait:
        follow_resource(session, made["id"])
        made = session.get(f"{PATH}/{made['id']}")["snapshot"]
    return Record(made)


@snapshot.command()
@click.argument("names", nargs=-1, required=True)
@wait_option
@destructive
@shown
@connected
def delete(session: Session, names: tuple[str, ...], wait: bool, yes: bool, dry_run: bool) -> Table | None:
    """Delete the snapshots NAMES (or ids)."""
    victims = [_find(session, name) for name in names]
    if dry_run:
        return planned(
            "delete snapshot",
            victims,
            lambda item: f"the content of volume {item['volume_id']} as of {item['created_at']}",
        )
    confirm(f"Delete {', '.join(item['name'] or item['id'] for item in victims)}?", yes)
    for item in victims:
        session.call("DELETE", f"{PATH}/{item['id']}")
    for item in victims if wait else ():
        follow_resource(session, item["id"])
    return None
