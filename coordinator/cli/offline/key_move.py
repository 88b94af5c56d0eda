"""`key move`: the keys of volumes from one key manager to another, or back into the sealed store."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.base.config import load
from agent.base.errors import Temporary
from agent.base.terminal.config import config_options
from agent.base.terminal.output import Record, shown
from coordinator.cli.offline.site import become_owner, beside, checked
from coordinator.server.settings import DEFAULT_CONFIG, CoordinatorSettings

if TYPE_CHECKING:
    from coordinator.state.database import Database

_LOOK_S = 0.5


class NotMovedYet(Temporary):
    code = "cli.keys-not-moved"
    sentence = "After {seconds:g} seconds {left} keys do not lie at {target} alone yet{reason}."
    hint = (
        "Nothing is lost: the coordinators go on, and the command can be run again. See that they were restarted with "
        "this configuration; keys of volumes that are being worked on move afterwards."
    )


@click.command()
@click.option("--dry-run", is_flag=True, help="Only tell where the keys lie.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until all are moved.")
@click.option("--timeout", type=click.FloatRange(0), default=3600.0, show_default=True, help="Seconds to wait at most.")
@config_options(DEFAULT_CONFIG)
@shown
def move(
    *, dry_run: bool, wait: bool, timeout: float, config: Path | None, sets: tuple[str, ...]
) -> Record:  # fmt: skip
    """Move the keys of volumes to the key manager that keys.manager names, or home to the sealed store (`local`).

    The running coordinators do it, with their own log-ins: restart them with both tables first. A key leaves its old
    place only after it was read back from the new one; killed at any moment, it goes on by itself.
    """
    from coordinator.state import deposits

    settings = load(CoordinatorSettings, config, sets)
    checked(settings)
    become_owner(settings)
    target = settings.keys.target
    with beside(settings) as database:
        _refuse_unknown(database, settings)
        if not dry_run:
            database.write_now(lambda conn: deposits.move_all(conn, target))
            if wait:
                asyncio.run(_moved(database, target, timeout))
        return Record(_state(database, target))


def _refuse_unknown(database: Database, settings: CoordinatorSettings) -> None:
    from coordinator.keys.errors import NoManager
    from coordinator.state import deposits

    there = {*database.read_now(deposits.places), *database.read_now(deposits.removals)}
    unknown = sorted(one for one in there - {deposits.LOCAL, *settings.keys.tables} if one is not None)
    if unknown:
        raise NoManager(manager=unknown[0])


def _state(database: Database, target: str) -> dict[str, Any]:
    from coordinator.state import deposits

    places, removals = database.read_now(deposits.places), database.read_now(deposits.removals)
    return {
        "target": target,
        **{f"at_{place}": places.get(place, 0) for place in ("local", "barbican", "vault")},
        "to_move": sum(count for place, count in places.items() if place != target),
        "to_remove": sum(removals.values()),
    }


async def _moved(database: Database, target: str, timeout: float) -> None:
    """Until all lie at the target alone; raises NotMovedYet."""
    ends, told = time.monotonic() + timeout, None
    while True:
        state = _state(database, target)
        if not state["to_move"] and not state["to_remove"]:
            return
        if told != state:
            click.echo(f"{state['to_move']} keys to move, {state['to_remove']} to remove where they were.", err=True)
            told = state
        if time.monotonic() > ends:
            left = state["to_move"] + state["to_remove"]
            raise NotMovedYet(seconds=timeout, left=left, target=target, reason=_reason(database))
        await asyncio.sleep(_LOOK_S)


def _reason(database: Database) -> str:
    from coordinator.keys.depository import AWAY
    from coordinator.state import issues

    found = [row.sentence for row in database.read_now(issues.listing) if row.code == AWAY]
    return f": {found[0].rstrip('.')}" if found else ""
