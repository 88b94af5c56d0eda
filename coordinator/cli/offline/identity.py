"""`identity export`, `identity import`: users, projects, roles and who has which, as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from agent.base.config import load
from agent.base.errors import Conflict, Invalid
from agent.base.files import write_whole
from agent.base.terminal.config import config_options
from coordinator.cli.offline.site import become_owner, beside, checked, in_its_place
from coordinator.server.settings import DEFAULT_CONFIG, CoordinatorSettings


class ExportExists(Conflict):
    code = "cli.export-exists"
    sentence = "{path} exists already."
    hint = "Name another file, or remove this one."


class NotReadable(Invalid):
    code = "cli.import-unreadable"
    sentence = "{path} can not be read: {reason}."
    hint = "Name a file that `brickyard-coordinator identity export` wrote."


@click.group()
def identity() -> None:
    """Users, projects and roles as a file."""


@identity.command()
@click.argument("file", type=click.Path(path_type=Path))
@config_options(DEFAULT_CONFIG)
def export(file: Path, config: Path | None, sets: tuple[str, ...]) -> None:
    """Write users, projects, roles and assignments to FILE; a coordinator may be running.

    Password hashes are among them: keep the file secret.
    """
    from coordinator.identity.bootstrap import exported

    settings = load(CoordinatorSettings, config, sets)
    checked(settings)
    if file.exists():
        raise ExportExists(path=str(file))
    with beside(settings) as database:
        made = database.read_now(exported)
    write_whole(file, (json.dumps(made, indent=2, sort_keys=True) + "\n").encode())
    click.echo(f"{file}: {len(made['users'])} users, {len(made['projects'])} projects.")


@identity.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@config_options(DEFAULT_CONFIG)
def import_(file: Path, config: Path | None, sets: tuple[str, ...]) -> None:
    """Add what FILE holds and is not there yet. Stop the coordinator first."""
    from coordinator.identity.bootstrap import imported

    settings = load(CoordinatorSettings, config, sets)
    checked(settings)
    content = _content(file)
    become_owner(settings)
    with in_its_place(settings) as database:
        counts = database.write_now(lambda conn: imported(conn, content))
    click.echo("Added: " + ", ".join(f"{count} {noun}s" for noun, count in counts.items()) + ".")


def _content(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except OSError as error:
        raise NotReadable(path=str(file), reason=error.strerror or "it can not be opened") from None
    except ValueError:
        raise NotReadable(path=str(file), reason="it is not JSON") from None
