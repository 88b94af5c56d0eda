"""`key rotate`; `key move` is in `key_move`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from agent.base.config import load
from agent.base.errors import NotFound
from agent.base.terminal.config import config_options
from coordinator.cli.offline.key_move import move
from coordinator.cli.offline.site import checked, in_its_place
from coordinator.server.settings import DEFAULT_CONFIG, CoordinatorSettings


class NoKeyFile(NotFound):
    code = "cli.no-key-file"
    sentence = "There is no key file {path}."
    hint = "Where systemd hands it over, name its file: --set keys.kek_file=/etc/brickyard/key-encryption-key."


@click.group()
def key() -> None:
    """The key-encryption key, which seals all secrets in the database, and where keys of volumes lie."""


key.add_command(move)


@key.command()
@config_options(DEFAULT_CONFIG)
def rotate(config: Path | None, sets: tuple[str, ...]) -> None:
    """Make a new key-encryption key and seal every secret anew. Stop the coordinator first.

    Killed at any moment, nothing is lost: the file then holds both keys, and the command can be run again.
    """
    from coordinator.keys import kek
    from coordinator.keys.store import KeyStore

    settings = load(CoordinatorSettings, config, sets)
    checked(settings)
    path = settings.keys.kek_file or settings.state_dir / "kek"
    if not path.exists():
        raise NoKeyFile(path=str(path))
    with in_its_place(settings) as database:
        former, fresh = kek.load(path), kek.Kek.generate()
        database.write_now(KeyStore(*former, path=str(path)).check)
        # Killed between write and chown, the file is root's: the folder still tells whose it should be.
        owner = (path.parent if path.parent == settings.state_dir else path).stat()
        _write(path, (fresh, *former), owner)
        moved = database.write_now(lambda conn: KeyStore(fresh, *former, path=str(path)).rotate(conn, fresh))
        _write(path, (fresh,), owner)
    click.echo(f"Sealed with the new key in {path}: {moved}. Keep a copy of it in a safe place.")


def _write(path: Path, keys: tuple[object, ...], owner: os.stat_result) -> None:
    from coordinator.keys import kek

    kek.store(path, tuple(each for each in keys if isinstance(each, kek.Kek)))
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)
