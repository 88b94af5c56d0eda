"""`brickyard image`."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import click

from agent.base.errors import Conflict
from agent.base.terminal.output import Record, Table, shown
from coordinator.cli.client.context import chosen, confirm, connected, destructive, found, pairs, planned
from coordinator.cli.client.session import Session
from coordinator.cli.client.waiting import transfer
from coordinator.cli.nouns.key import TYPES, secret_of

PATH = "/image/v2/images"
OURS = "/brickyard/v1/images"
FORMATS = ("raw", "qcow2", "luks", "gpt", "vmdk", "vdi", "vhd", "vhdx", "iso")
LISTED = ("id", "name", "status", "disk_format", "size", "visibility")
BLOCK = 1 << 20
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_LINKS = frozenset({"self", "file", "schema"})


class FileExists(Conflict):
    code = "cli.file-exists"
    sentence = "{path} exists already."
    hint = "Name another file, or remove this one."


@click.group()
def image() -> None:
    """Images that volumes are made of."""


def find(session: Session, name: str) -> dict[str, Any]:
    """The image with this name or id."""
    return found(session, "image", PATH, "images", name)


def _record(image: dict[str, Any]) -> Record:
    return Record({key: value for key, value in image.items() if key not in _LINKS})


@image.command("list")
@shown
@connected
def list_images(session: Session) -> Table:
    """List the images one may use."""
    rows = [{key: value for key, value in row.items() if key not in _LINKS} for row in session.pages(PATH, "images")]
    return Table(rows, LISTED)


@image.command()
@click.argument("name")
@shown
@connected
def show(session: Session, name: str) -> Record:
    """Show the image NAME (or id)."""
    return _record(find(session, name))


@image.command()
@click.argument("name")
@click.option("--file", "source", type=_FILE, help="Upload this file.")
@click.option("--disk-format", type=click.Choice(FORMATS), default="raw", show_default=True, help="What the file is.")
@click.option("--property", "properties", multiple=True, metavar="KEY=VALUE", help="Property; may be given often.")
@click.option(
    "--visibility",
    type=click.Choice(["private", "public", "shared", "community"]),
    default="private",
    show_default=True,
    help="Who sees it.",
)
@click.option("--protected", is_flag=True, help="Refuse to delete it.")
@click.option("--min-disk", type=click.IntRange(0), default=0, help="Least size of its volumes, in GiB.")
@click.option("--encryption-key", help="It is encrypted (LUKS) with this registered key (name or id).")
@click.option("--encryption-file", help="It is encrypted (LUKS) with the secret in this file; `-` is standard input.")
@click.option(
    "--encryption-type",
    type=click.Choice(TYPES),
    default="passphrase",
    show_default=True,
    help="Type of the secret of --encryption-file.",
)
@click.option("--luks", type=click.Choice(["LUKSv1", "LUKSv2"]), default="LUKSv1", show_default=True, help="Its LUKS.")
@click.option("--decrypt-size", type=click.IntRange(1), help="Bytes that it gives when it is decrypted.")
@click.option("--keep-key", is_flag=True, help="Keep the secret when the image is deleted.")
@shown
@connected
def create(session: Session, **given: Any) -> Record:
    """Register the image NAME and upload its file.

    An encrypted image stays encrypted all the way: give its secret and the number of bytes that it gives inside.
    """
    body: dict[str, Any] = {
        "name": given["name"], "disk_format": given["disk_format"], "visibility": given["visibility"],
        "protected": given["protected"], "min_disk": given["min_disk"],
        "properties": pairs(given["properties"], "--property"), "encryption": _encryption(session, given),
    }  # fmt: skip
    wanted = {key: value for key, value in body.items() if value is not None}
    made = session.call("POST", OURS, {"image": wanted})["image"]
    if given["source"] is not None:
        with given["source"].open("rb") as source:
            _upload(session, made["id"], source)
        made = session.get(f"{PATH}/{made['id']}")
    return _record(made)


def _encryption(session: Session, given: dict[str, Any]) -> dict[str, Any] | None:
    key, file = given["encryption_key"], given["encryption_file"]
    if key is None and file is None:
        return None
    if key is not None and file is not None:
        raise click.UsageError("Give only one of --encryption-key and --encryption-file.")
    if given["decrypt_size"] is None:
        raise click.UsageError("An encrypted image needs --decrypt-size: the bytes that it gives when it is decrypted.")
    made = {"format": given["luks"], "decrypt_size": given["decrypt_size"], "delete_key": not given["keep_key"]}
    if key is not None:
        return {**made, "key_id": chosen(session.pages("/brickyard/v1/keys", "keys"), "key", key)["id"]}
    value = base64.b64encode(secret_of(file)).decode()
    return {**made, "secret": {"type": given["encryption_type"], "payload_b64": value}}


@image.command()
@click.argument("name")
@click.argument("file", type=_FILE)
@shown
@connected
def upload(session: Session, name: str, file: Path) -> Record:
    """Upload FILE as the bytes of the registered image NAME (or id)."""
    image_id = find(session, name)["id"]
    with file.open("rb") as source:
        _upload(session, image_id, source)
    return _record(session.get(f"{PATH}/{image_id}"))


def _upload(session: Session, image_id: str, source: IO[bytes]) -> None:
    length = os.fstat(source.fileno()).st_size
    with transfer("uploading", length) as tell:
        session.upload(f"{PATH}/{image_id}/file", _blocks(source, tell), length)


def _blocks(source: IO[bytes], tell: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    while block := source.read(BLOCK):
        yield block
        done += len(block)
        tell(done)


@image.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@shown
@connected
def save(session: Session, name: str, file: Path) -> Record:
    """Download the bytes of the image NAME (or id) to FILE; they come as they are, encrypted ones encrypted."""
    wanted = find(session, name)
    if file.exists():
        raise FileExists(path=str(file))
    temp = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
    stream, length = session.download(f"{PATH}/{wanted['id']}/file")
    try:
        with temp.open("xb") as target, transfer("downloading", length) as tell:
            for block in _blocks(stream, tell):
                target.write(block)
            target.flush()
            os.fsync(target.fileno())
        done = temp.stat().st_size
        os.link(temp, file)
    except FileExistsError:
        raise FileExists(path=str(file)) from None
    finally:
        temp.unlink(missing_ok=True)
    return Record({"id": wanted["id"], "file": str(file), "size": done}, value="file")


@image.command()
@click.argument("names", nargs=-1, required=True)
@destructive
@shown
@connected
def delete(session: Session, names: tuple[str, ...], yes: bool, dry_run: bool) -> Table | None:
    """Delete the images NAMES (or ids) and their bytes."""
    victims = [find(session, name) for name in names]
    if dry_run:
        return planned("delete image", victims, lambda item: f"{item.get('size') or 0} bytes of data")
    confirm(f"Delete {', '.join(item['name'] or item['id'] for item in victims)}?", yes)
    for item in victims:
        session.call("DELETE", f"{PATH}/{item['id']}")
    return None
