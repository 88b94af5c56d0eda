"""`brickyard volume`."""

from __future__ import annotations

from typing import Any

import click

from agent.base.terminal.group import LazyGroup
from agent.base.terminal.output import Endless, Record, Table, shown
from coordinator.cli.client.context import confirm, connected, destructive, dry_run_option, found, pairs, planned
from coordinator.cli.client.errors import NotAttached
from coordinator.cli.client.session import Session
from coordinator.cli.client.waiting import follow, follow_resource, frames, wait_option, watch_option

PATH = "/v3/volumes"
LISTED = ("id", "name", "status", "size", "volume_type", "bootable", "encrypted")
SHOWN = (
    "id", "name", "description", "status", "size", "volume_type", "encrypted", "bootable", "multiattach", "snapshot_id",
    "source_volid", "metadata", "attachments", "availability_zone", "created_at", "os-vol-host-attr:host",
)  # fmt: skip


LAZY = {
    "revert": ("coordinator.cli.nouns.volume_data:revert", "Go back to the latest snapshot."),
    "manage": ("coordinator.cli.nouns.volume_data:manage", "Manage data that lie on a pool already."),
    "manageable": ("coordinator.cli.nouns.volume_data:manageable", "List what lies on a pool."),
    "unmanage": ("coordinator.cli.nouns.volume_data:unmanage", "Let volumes go with their data."),
    "forget": ("coordinator.cli.nouns.forget:forget", "Drop the rows of a volume whose storage is gone for good."),
    "rekey": ("coordinator.cli.nouns.rekey:rekey", "Replace the key of an encrypted volume."),
    "repair": ("coordinator.cli.nouns.repair:repair", "Compare what is said of a volume, and make it agree."),
}


@click.group(cls=LazyGroup, lazy=LAZY)
def volume() -> None:
    """Volumes."""


def find(session: Session, name: str) -> dict[str, Any]:
    """The volume with this name or id."""
    return found(session, "volume", PATH, "volumes", name)


def record(volume: dict[str, Any]) -> Record:
    return Record(volume, tuple(name for name in SHOWN if name in volume))


@volume.command("list")
@click.option("--all-projects", is_flag=True, help="Volumes of every project (administrators).")
@click.option("--name", help="Only volumes of this name.")
@click.option("--status", help="Only volumes in this status.")
@watch_option
@shown
@connected
def list_volumes(
    session: Session, all_projects: bool, name: str | None, status: str | None, watch: bool
) -> Table | Endless:
    """List volumes."""
    query = {"name": name, "status": status, "all_tenants": "1" if all_projects else None}

    def read() -> Table:
        return Table(list(session.pages(f"{PATH}/detail", "volumes", **query)), LISTED)

    return frames(read) if watch else read()


@volume.command()
@click.argument("name")
@shown
@connected
def show(session: Session, name: str) -> Record:
    """Show the volume NAME (or id)."""
    return record(find(session, name))


@volume.command()
@click.argument("name", required=False)
@click.option("--size", type=click.IntRange(1), help="GiB; default: the size of what it is made from.")
@click.option("--type", "type_name", help="Volume type.")
@click.option("--image", help="Make it from this image.")
@click.option("--snapshot", help="Make it from this snapshot.")
@click.option("--source", help="Make it a copy of this volume.")
@click.option("--description", help="Free text.")
@click.option("--property", "properties", multiple=True, metavar="KEY=VALUE", help="Metadata; may be given often.")
@wait_option
@shown
@connected
def create(
    session: Session, *, name: str | None, size: int | None, type_name: str | None, image: str | None,
    snapshot: str | None, source: str | None, description: str | None, properties: tuple[str, ...], wait: bool,
) -> Record:  # fmt: skip
    """Create a volume: empty, or from an image, a snapshot or another volume."""
    if sum(item is not None for item in (image, snapshot, source)) > 1:
        raise click.UsageError("Give only one of --image, --snapshot and --source.")
    body: dict[str, Any] = {"size": size, "name": name, "description": description}
    if type_name is not None:
        body["volume_type"] = type_name
    if properties:
        body["metadata"] = pairs(properties, "--property")
    if image is not None:
        from coordinator.cli.nouns.image import find as find_image

        body["imageRef"] = find_image(session, image)["id"]
    elif snapshot is not None:
        body["snapshot_id"] = found(session, "snapshot", "/v3/snapshots", "snapshots", snapshot)["id"]
    elif source is not None:
        body["source_volid"] = find(session, source)["id"]
    elif size is None:
        raise click.UsageError("Give --size in GiB.")
    made = session.call("POST", PATH, {"volume": body})["volume"]
    if wait:
        follow_resource(session, made["id"])
        made = session.get(f"{PATH}/{made['id']}")["volume"]
    return record(made)


@volume.command("set")
@click.argument("name")
@click.option("--name", "new_name", help="A new name.")
@click.option("--description", help="Free text.")
@click.option("--property", "properties", multiple=True, metavar="KEY=VALUE", help="Add metadata; may be given often.")
@click.option("--bootable/--no-bootable", default=None, help="Whether a server can boot from it.")
@click.option("--read-only/--read-write", default=None, help="Whether attachments may write.")
@shown
@connected
def set_volume(
    session: Session, *, name: str, new_name: str | None, description: str | None, properties: tuple[str, ...],
    bootable: bool | None, read_only: bool | None,
) -> Record:  # fmt: skip
    """Change the volume NAME (or id)."""
    path = f"{PATH}/{find(session, name)['id']}"
    given = {"name": new_name, "description": description}
    changes = {key: value for key, value in given.items() if value is not None}
    if changes:
        session.call("PUT", path, {"volume": changes})
    if properties:
        session.call("POST", f"{path}/metadata", {"metadata": pairs(properties, "--property")})
    if bootable is not None:
        session.call("POST", f"{path}/action", {"os-set_bootable": {"bootable": bootable}})
    if read_only is not None:
        session.call("POST", f"{path}/action", {"os-update_readonly_flag": {"readonly": read_only}})
    return record(session.get(path)["volume"])


@volume.command()
@click.argument("name")
@click.argument("size", type=click.IntRange(1))
@wait_option
@shown
@connected
def extend(session: Session, name: str, size: int, wait: bool) -> Record:
    """Make the volume NAME (or id) SIZE GiB large."""
    path = f"{PATH}/{find(session, name)['id']}"
    session.call("POST", f"{path}/action", {"os-extend": {"new_size": size}})
    if wait:
        follow_resource(session, path.rpartition("/")[2])
    return record(session.get(path)["volume"])


@volume.command()
@click.argument("names", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Whatever its status (administrators).")
@click.option("--cascade", is_flag=True, help="Their snapshots too.")
@wait_option
@destructive
@shown
@connected
def delete(
    session: Session, *, names: tuple[str, ...], force: bool, cascade: bool, wait: bool, yes: bool, dry_run: bool
) -> Table | None:
    """Delete the volumes NAMES (or ids)."""
    victims = [find(session, name) for name in names]
    if dry_run:
        return planned(
            "delete volume", [_doomed(session, item, cascade) for item in victims], lambda item: item["lost"]
        )
    listed = ", ".join(f"{item['name'] or item['id']} ({item['size']} GiB)" for item in victims)
    confirm(f"Delete {listed} with all data{' and snapshots' if cascade else ''}?", yes)
    query = {"force": "true" if force else None, "cascade": "true" if cascade else None}
    for item in victims:
        session.call("DELETE", f"{PATH}/{item['id']}", **query)
    for item in victims if wait else ():
        follow_resource(session, item["id"])
    return None


def _doomed(session: Session, volume: dict[str, Any], cascade: bool) -> dict[str, Any]:
    """A volume with what is lost with it, and what stands against its deletion."""
    taken = [item["name"] or item["id"] for item in session.pages("/v3/snapshots", "snapshots", volume_id=volume["id"])]
    names = f"snapshots {', '.join(taken)}" if taken else ""
    users = [item["server_id"] or item["host_name"] or "a host" for item in volume["attachments"]]
    refused = [f"it is attached to {', '.join(users)}"] if users else []
    refused += [f"it has {names}: give --cascade"] if taken and not cascade else []
    lost = f"{volume['size']} GiB of data" + (f" and {names}" if taken and cascade else "")
    return {**volume, "lost": lost, "refused": "; ".join(refused) or None}


def lost_access(attachment: dict[str, Any]) -> str:
    """What ending a host attachment takes away."""
    device = (attachment.get("device") or {}).get("device") or "no device yet"
    return f"the device {device} on host {attachment['host_id']}; the data stay"


@volume.command()
@click.argument("name")
@click.argument("host")
@click.option("--read-only", is_flag=True, help="Allow no writes.")
@wait_option
@shown
@connected
def attach(session: Session, name: str, host: str, read_only: bool, wait: bool) -> Record:
    """Attach the volume NAME (or id) to the host HOST."""
    return attach_to(session, name, host, "ro" if read_only else "rw", wait)


def attach_to(session: Session, name: str, host: str, mode: str, wait: bool) -> Record:
    """Make a host attachment; with `wait` the answer names the device."""
    body = {"volume_id": find(session, name)["id"], "host_id": host, "mode": mode}
    answer = session.call("POST", "/brickyard/v1/attachments", body)
    made = answer["attachment"]
    if wait:
        follow(session, answer["operation"])
        made = session.get(f"/brickyard/v1/attachments/{made['id']}")["attachment"]
    return Record(made)


@volume.command()
@click.argument("name")
@click.argument("host", required=False)
@dry_run_option
@wait_option
@shown
@connected
def detach(session: Session, name: str, host: str | None, wait: bool, dry_run: bool) -> Table | None:
    """Detach the volume NAME (or id) from the host HOST, or from all."""
    query = {"volume_id": find(session, name)["id"], "host_id": host}
    there = list(session.pages("/brickyard/v1/attachments", "attachments", **query))
    if not there:
        raise NotAttached(name=name, host=host or "any host")
    if dry_run:
        return planned("detach", there, lost_access)
    begun = [session.call("DELETE", f"/brickyard/v1/attachments/{item['id']}")["operation"] for item in there]
    for operation in begun if wait else ():
        follow(session, operation)
    return None
