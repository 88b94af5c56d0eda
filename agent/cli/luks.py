"""`luks show`, `backup`, `restore`, `add-key`, `remove-key`: the header of a volume that is attached nowhere."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from agent.base.files import write_whole
from agent.base.terminal.config import config_options
from agent.base.terminal.output import Record, shown
from agent.cli.place import settings_of
from agent.server.settings import DEFAULT_CONFIG

_T = TypeVar("_T")
_MOST = 4096
_LOCK_S = 10.0
_KINDS = click.Choice(["passphrase", "symmetric"])
_PLACE = click.Path(exists=True, dir_okay=False, path_type=Path)
_key_file = click.option("--key-file", required=True, help="File with a key that opens it; `-`: standard input.")
_key_type = click.option(
    "--key-type", type=_KINDS, default="passphrase", show_default=True,
    help="A passphrase is used as it is, a symmetric key hex-encoded.",
)  # fmt: skip


_dry_run = click.option("--dry-run", is_flag=True, help="Only tell which slots would go; change nothing.")


@click.group()
def luks() -> None:
    """Look at, save and change the LUKS header of a volume: PLACE is its file or device."""


@luks.command()
@click.argument("place", type=_PLACE)
@shown
def show(place: Path) -> Record:
    """Show what the header says; nothing of it is secret."""
    from agent.luks import header
    from agent.luks.window import whole_file

    def look(fd: int) -> dict[str, Any]:
        found = header.read(whole_file(fd))
        details = found.details
        return {
            "version": details.version,
            "uuid": found.uuid,
            "cipher": details.cipher,
            "key_bits": details.key_bytes * 8,
            "sector_bytes": details.sector_size,
            "header_bytes": details.payload_offset,
            "content_bytes": details.payload_bytes,
            "slots": [
                {"slot": slot.index, "kdf": slot.kdf, "iterations": slot.iterations, "memory": slot.memory}
                for slot in details.slots
            ],
        }

    return Record(_with(place, os.O_RDONLY, look), value="uuid")


@luks.command()
@click.argument("place", type=_PLACE)
@click.argument("file", type=click.Path(path_type=Path))
@shown
def backup(place: Path, file: Path) -> Record:
    """Keep the header in FILE (mode 0600), which must not exist; with a key of this time it always opens the volume."""
    from agent.luks import slots

    if file.exists():
        raise click.UsageError(f"{file} exists already.")
    kept = _with(place, os.O_RDONLY, slots.backup)
    write_whole(file, kept, 0o600)
    return Record({"file": str(file), "bytes": len(kept)}, value="file")


@luks.command()
@click.argument("place", type=_PLACE)
@click.argument("file", type=_PLACE)
@click.option("--force", is_flag=True, help="Also over the whole header of another volume.")
@_dry_run
@config_options(DEFAULT_CONFIG)
@shown
def restore(
    *, place: Path, file: Path, force: bool, dry_run: bool, config: Path | None, sets: tuple[str, ...]
) -> Record:
    """Put a header back that `backup` kept: keys added since then open the volume no more, removed ones do again."""
    from agent.luks import slots

    kept = file.read_bytes()
    if dry_run:
        own = _with(place, os.O_RDONLY, lambda fd: slots.restorable(fd, kept, force=force))
        lost = [slot.index for slot in own.slots] if own is not None else []
        return Record({"place": str(place), "would_write": len(kept), "would_lose_slots": lost}, value="place")
    _alone(place, config, sets, lambda fd: slots.restore(fd, kept, force=force))
    return Record({"place": str(place), "bytes": len(kept)}, value="place")


@luks.command("add-key")
@click.argument("place", type=_PLACE)
@_key_file
@_key_type
@click.option("--new-key-file", required=True, help="File with the key to add; `-`: standard input.")
@click.option("--new-key-type", type=_KINDS, default="passphrase", show_default=True, help="The same of the new key.")
@config_options(DEFAULT_CONFIG)
@shown
def add_key(place: Path, config: Path | None, sets: tuple[str, ...], **keys: str) -> Record:
    """Let another key open the volume, too; the one that Brickyard knows stays."""
    from agent.luks import slots
    from agent.luks.model import iterations_for

    if keys["key_file"] == keys["new_key_file"] == "-":
        raise click.UsageError("Only one of the two keys can come from standard input.")
    old, new = _secret(keys["key_file"], keys["key_type"]), _secret(keys["new_key_file"], keys["new_key_type"])
    iterations = iterations_for(new, None, settings_of(config, sets).images.passphrase_iterations)
    slot = _alone(place, config, sets, lambda fd: slots.add(fd, old, new, iterations=iterations))
    return Record({"place": str(place), "slot": slot}, value="slot")


@luks.command("remove-key")
@click.argument("place", type=_PLACE)
@_key_file
@_key_type
@_dry_run
@config_options(DEFAULT_CONFIG)
@shown
def remove_key(
    *, place: Path, key_file: str, key_type: str, dry_run: bool, config: Path | None, sets: tuple[str, ...]
) -> Record:
    """Destroy the slots that a key opens; the last one of a volume is refused."""
    from agent.luks import slots

    secret = _secret(key_file, key_type)
    if dry_run:
        lost = _with(place, os.O_RDONLY, lambda fd: slots.opened_by(fd, secret))
        return Record({"place": str(place), "would_lose_slots": lost}, value="place")
    _alone(place, config, sets, lambda fd: slots.remove(fd, secret))
    return Record({"place": str(place)}, value="place")


def _secret(file: str, kind: str) -> Any:
    from agent.luks.model import Secret

    value = sys.stdin.buffer.read(_MOST + 1) if file == "-" else Path(file).read_bytes()
    if len(value) > _MOST:
        raise click.UsageError(f"A key has {_MOST} bytes at most.")
    return Secret(kind, value)


def _with(place: Path, flags: int, work: Callable[[int], _T]) -> _T:
    fd = os.open(place, flags | os.O_CLOEXEC)
    try:
        return work(fd)
    finally:
        os.close(fd)


def _alone(place: Path, config: Path | None, sets: tuple[str, ...], work: Callable[[int], _T]) -> _T:
    """Change a header while no job of the agent works on the volume, and nothing has it open as a device."""
    from agent.base.ids import is_id
    from agent.host import sysfs
    from agent.host.locks import resource_lock
    from agent.luks.errors import VolumeHeld

    folder, name = settings_of(config, sets).lock_dir, place.resolve().name

    def change() -> _T:
        if any(loop.file_name == name for loop in sysfs.loop_devices()):
            raise VolumeHeld(place=str(place), reason="a loop device is on it")
        try:
            return _with(place, os.O_RDWR | (os.O_EXCL if place.is_block_device() else 0), work)
        except OSError as failure:
            raise VolumeHeld(place=str(place), reason=failure.strerror or str(failure)) from None

    async def held() -> _T:
        async with resource_lock(folder, f"volume-{name}", _LOCK_S):
            return await asyncio.to_thread(change)

    return asyncio.run(held()) if is_id(name) and folder.is_dir() else change()
