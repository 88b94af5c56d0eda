"""`brickyard volume revert`, `manageable`, `manage`, `unmanage`: what becomes of a volume's data where they lie."""

from __future__ import annotations

import click

from agent.base.terminal.output import Record, Table, shown
from coordinator.cli.client.context import chosen, confirm, connected, destructive, found, pairs, planned
from coordinator.cli.client.session import Session
from coordinator.cli.client.waiting import follow_resource, wait_option
from coordinator.cli.nouns.key import PATH as KEYS
from coordinator.cli.nouns.volume import PATH, find, record

LISTED = ("reference", "size", "safe_to_manage", "reason_not_safe", "cinder_id")


@click.command()
@click.argument("snapshot")
@wait_option
@destructive
@shown
@connected
def revert(session: Session, snapshot: str, wait: bool, yes: bool, dry_run: bool) -> Record | Table:
    """Give a volume the content of its latest snapshot SNAPSHOT (name or id) again."""
    taken = found(session, "snapshot", "/v3/snapshots", "snapshots", snapshot)
    volume = find(session, taken["volume_id"])
    lost = f"what was written since {taken['created_at']}"
    if dry_run:
        return planned("revert volume", [volume], lambda item: lost)
    confirm(f"Revert {volume['name'] or volume['id']}, and lose {lost}?", yes)
    session.call("POST", f"{PATH}/{volume['id']}/action", {"revert": {"snapshot_id": taken["id"]}})
    if wait:
        follow_resource(session, volume["id"])
    return record(session.get(f"{PATH}/{volume['id']}")["volume"])


@click.command()
@click.argument("pool")
@shown
@connected
def manageable(session: Session, pool: str) -> Table:
    """List what lies on POOL (host@backend#pool), and whether it can be managed."""
    rows = session.get("/v3/manageable_volumes/detail", host=pool)["manageable-volumes"]
    return Table([{**row, "reference": row["reference"]["source-name"]} for row in rows], LISTED)


@click.command()
@click.argument("pool")
@click.argument("reference")
@click.option("--name", help="What the volume is to be called.")
@click.option("--type", "type_name", help="Volume type.")
@click.option("--key", help="Secret (name or id) that opens what is encrypted; the volume gets a copy.")
@click.option("--bootable", is_flag=True, help="A server can boot from it.")
@click.option("--property", "properties", multiple=True, metavar="KEY=VALUE", help="Metadata; may be given often.")
@wait_option
@shown
@connected
def manage(
    session: Session, *, pool: str, reference: str, name: str | None, type_name: str | None, key: str | None,
    bootable: bool, properties: tuple[str, ...], wait: bool,
) -> Record:  # fmt: skip
    """Manage what is called REFERENCE on POOL as a volume, without a copy."""
    ref = {"source-name": reference}
    if key is not None:
        ref["encryption-key-id"] = chosen(session.pages(KEYS, "keys"), "key", key)["id"]
    body = {"host": pool, "ref": ref, "name": name, "bootable": bootable,
            "metadata": pairs(properties, "--property")}  # fmt: skip
    if type_name is not None:
        body["volume_type"] = type_name
    made = session.call("POST", "/v3/manageable_volumes", {"volume": body})["volume"]
    if wait:
        follow_resource(session, made["id"])
        made = session.get(f"{PATH}/{made['id']}")["volume"]
    return record(made)


@click.command()
@click.argument("names", nargs=-1, required=True)
@wait_option
@destructive
@shown
@connected
def unmanage(session: Session, names: tuple[str, ...], wait: bool, yes: bool, dry_run: bool) -> Table | None:
    """Let the volumes NAMES (or ids) go; their data stay on the host, and can be managed again."""
    victims = [find(session, name) for name in names]
    if dry_run:
        return planned("unmanage volume", victims, lambda item: "the volume's row; its data stay on the host")
    confirm(f"Let {', '.join(item['name'] or item['id'] for item in victims)} go?", yes)
    for item in victims:
        session.call("POST", f"{PATH}/{item['id']}/action", {"os-unmanage": None})
    for item in victims if wait else ():
        follow_resource(session, item["id"])
    return None
