"""`brickyard type`."""

from __future__ import annotations

from typing import Any

import click

from agent.base import ciphers
from agent.base.terminal.output import Record, Table, shown
from coordinator.cli.client.context import confirm, connected, destructive, found, pairs, planned
from coordinator.cli.client.session import Session

PATH = "/v3/types"
PROVIDERS = ("luks", "luks1", "luks2")
LISTED = ("id", "name", "is_public", "description", "extra_specs")


@click.group("type")
def type_group() -> None:
    """Volume types, and how their volumes are encrypted."""


def _find(session: Session, name: str) -> dict[str, Any]:
    return found(session, "type", PATH, "volume_types", name)


def _record(session: Session, type_id: str) -> Record:
    found_type = session.get(f"{PATH}/{type_id}")["volume_type"]
    encryption = session.get(f"{PATH}/{type_id}/encryption") if "qos_specs_id" in found_type else {}
    names = ("provider", "cipher", "key_size", "control_location")
    found_type["encryption"] = {name: encryption[name] for name in names if encryption.get(name) is not None}
    return Record(found_type, ("id", "name", "description", "is_public", "extra_specs", "encryption"))


@type_group.command("list")
@shown
@connected
def list_types(session: Session) -> Table:
    """List volume types."""
    return Table(list(session.pages(PATH, "volume_types")), LISTED)


@type_group.command()
@click.argument("name")
@shown
@connected
def show(session: Session, name: str) -> Record:
    """Show the volume type NAME (or id); `default` is the one of volumes whose creator names none."""
    return _record(session, "default" if name == "default" else _find(session, name)["id"])


@type_group.command()
@click.argument("name")
@click.option("--description", help="Free text.")
@click.option("--property", "properties", multiple=True, metavar="KEY=VALUE", help="Extra spec; may be given often.")
@click.option("--private", is_flag=True, help="Only projects that are let in may use it.")
@click.option("--encryption-provider", type=click.Choice(PROVIDERS), help="Encrypt its volumes with LUKS.")
@click.option("--encryption-cipher", help="Default: aes-xts-plain64; others see the how-to on types.")
@click.option("--encryption-key-size", type=click.Choice(["128", "192", "256", "384", "512"]),
              help="Bits; default: the most that the cipher has.")  # fmt: skip
@shown
@connected
def create(
    session: Session, *, name: str, description: str | None, properties: tuple[str, ...], private: bool,
    encryption_provider: str | None, encryption_cipher: str | None, encryption_key_size: str | None,
) -> Record:  # fmt: skip
    """Create the volume type NAME."""
    if encryption_provider is None and (encryption_cipher or encryption_key_size):
        raise click.UsageError("Give --encryption-provider, too.")
    body: dict[str, Any] = {"name": name, "description": description, "os-volume-type-access:is_public": not private}
    if properties:
        body["extra_specs"] = pairs(properties, "--property")
    made = session.call("POST", PATH, {"volume_type": body})["volume_type"]
    if encryption_provider is not None:
        _encrypt(session, made["id"], encryption_provider, encryption_cipher, encryption_key_size)
    return _record(session, made["id"])


def _encrypt(session: Session, type_id: str, provider: str, cipher: str | None, key_size: str | None) -> None:
    """A type that can not be made encrypted must not be left behind unencrypted."""
    values = {
        "provider": provider, "control_location": "front-end", "cipher": cipher or ciphers.DEFAULT,
        "key_size": int(key_size or ciphers.usual_key_size(cipher or ciphers.DEFAULT)),
    }  # fmt: skip
    try:
        session.call("POST", f"{PATH}/{type_id}/encryption", {"encryption": values})
    except Exception:
        session.call("DELETE", f"{PATH}/{type_id}")
        raise


@type_group.command("set")
@click.argument("name")
@click.option("--name", "new_name", help="A new name.")
@click.option("--description", help="Free text.")
@click.option("--property", "properties", multiple=True, metavar="KEY=VALUE", help="Extra spec; may be given often.")
@click.option("--unset", multiple=True, metavar="KEY", help="Remove an extra spec; may be given often.")
@click.option("--allow", multiple=True, metavar="PROJECT", help="Let a project (id) use a private type.")
@click.option("--forbid", multiple=True, metavar="PROJECT", help="Take a private type from a project (id).")
@shown
@connected
def set_type(
    session: Session, *, name: str, new_name: str | None, description: str | None, properties: tuple[str, ...],
    unset: tuple[str, ...], allow: tuple[str, ...], forbid: tuple[str, ...],
) -> Record:  # fmt: skip
    """Change the volume type NAME (or id)."""
    type_id = _find(session, name)["id"]
    path = f"{PATH}/{type_id}"
    changes = {key: value for key, value in (("name", new_name), ("description", description)) if value is not None}
    if changes:
        session.call("PUT", path, {"volume_type": changes})
    if properties:
        session.call("POST", f"{path}/extra_specs", {"extra_specs": pairs(properties, "--property")})
    for key in unset:
        session.call("DELETE", f"{path}/extra_specs/{key}")
    for action, projects in (("addProjectAccess", allow), ("removeProjectAccess", forbid)):
        for project in projects:
            session.call("POST", f"{path}/action", {action: {"project": project}})
    return _record(session, type_id)


@type_group.command()
@click.argument("names", nargs=-1, required=True)
@destructive
@shown
@connected
def delete(session: Session, names: tuple[str, ...], yes: bool, dry_run: bool) -> Table | None:
    """Delete the volume types NAMES (or ids)."""
    victims = [_find(session, name) for name in names]
    if dry_run:
        return planned(
            "delete volume type", victims, lambda item: "the type with its extra specs; volumes keep their data"
        )
    confirm(f"Delete {', '.join(item['name'] for item in victims)}?", yes)
    for item in victims:
        session.call("DELETE", f"{PATH}/{item['id']}")
    return None
