"""`brickyard key`."""

from __future__ import annotations

import base64
import binascii
import sys
from pathlib import Path
from typing import Any

import click

from agent.base.errors import Invalid
from agent.base.terminal.group import LazyGroup
from agent.base.terminal.output import Record, Table, shown
from coordinator.cli.client.context import chosen, confirm, connected, destructive, planned
from coordinator.cli.client.session import Session

PATH = "/brickyard/v1/keys"
TYPES = ("passphrase", "symmetric", "opaque", "private", "public", "certificate")
LISTED = ("id", "name", "type", "algorithm", "bit_length", "created_at")
MOST = 20_000


LAZY = {"replace": ("coordinator.cli.nouns.key_replace:replace", "Give volumes that it opens keys of their own.")}


@click.group(cls=LazyGroup, lazy=LAZY)
def key() -> None:
    """Secrets that volumes and images are encrypted with. Values go in, and never come out."""


def secret_of(file: str, *, hexadecimal: bool = False) -> bytes:
    """The bytes of a file, or of standard input for `-`; a passphrase file keeps even its last newline."""
    value = sys.stdin.buffer.read(MOST + 1) if file == "-" else Path(file).read_bytes()
    if not 0 < len(value) <= MOST:
        raise Invalid(reason=f"A secret has 1 to {MOST} bytes; this one has {len(value) if value else 'none'}.")
    if not hexadecimal:
        return value
    try:
        return binascii.unhexlify(value.strip())
    except binascii.Error:
        raise Invalid(reason="The value is not hexadecimal.") from None


@key.command()
@click.option("--type", "kind", type=click.Choice(TYPES), default="passphrase", show_default=True, help="Its type.")
@click.option("--file", help="File with the value, taken as it is; `-` is standard input.")
@click.option("--hex", "hexadecimal", is_flag=True, help="The file holds the bytes in hexadecimal.")
@click.option("--generate", type=click.Choice(["128", "192", "256", "512"]), help="Have a symmetric key made; bits.")
@click.option("--name", help="A name for people.")
@click.option("--algorithm", help="What it is for, for example aes.")
@shown
@connected
def register(
    session: Session, *, kind: str, file: str | None, hexadecimal: bool, generate: str | None, name: str | None,
    algorithm: str | None,
) -> Record:  # fmt: skip
    """Register a secret from a file or standard input, or have a key made."""
    if (file is None) == (generate is None):
        raise click.UsageError("Give either --file FILE (`-`: standard input) or --generate BITS.")
    body: dict[str, Any] = {"name": name, "algorithm": algorithm}
    if generate is not None:
        body |= {"type": "symmetric", "bit_length": int(generate)}
    else:
        value = secret_of(file or "-", hexadecimal=hexadecimal)
        body |= {"type": kind, "payload_b64": base64.b64encode(value).decode()}
    given = {field: value for field, value in body.items() if value is not None}
    return Record(session.call("POST", PATH, {"key": given})["key"])


@key.command("list")
@shown
@connected
def list_keys(session: Session) -> Table:
    """List the project's secrets."""
    return Table(list(session.pages(PATH, "keys")), LISTED)


@key.command()
@click.argument("name")
@shown
@connected
def show(session: Session, name: str) -> Record:
    """Show what is known of the secret NAME (or id)."""
    return Record(chosen(session.pages(PATH, "keys"), "key", name))


@key.command()
@click.argument("names", nargs=-1, required=True)
@destructive
@shown
@connected
def delete(session: Session, names: tuple[str, ...], yes: bool, dry_run: bool) -> Table | None:
    """Delete the secrets NAMES (or ids) that nothing uses."""
    known = list(session.pages(PATH, "keys"))
    victims = [chosen(known, "key", name) for name in names]
    if dry_run:
        return planned(
            "delete key", victims, lambda item: "the secret: what is encrypted with it can not be opened again"
        )
    confirm(
        f"Delete {', '.join(item['name'] or item['id'] for item in victims)}? What needs it can not be opened.", yes
    )
    for item in victims:
        session.call("DELETE", f"{PATH}/{item['id']}")
    return None
