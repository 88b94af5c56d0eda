"""`brickyard-coordinator quota`: how usage is counted, and whether kept sums are right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from sqlalchemy import Connection

from agent.base.config import load
from agent.base.errors import Permanent
from agent.base.terminal.config import config_options
from coordinator.cli.offline.site import become_owner, beside, checked, in_its_place
from coordinator.server.settings import DEFAULT_CONFIG, CoordinatorSettings

if TYPE_CHECKING:
    from coordinator.state.database import Database

_NOTHING = "Usage is counted from the volumes and snapshots (quota.driver = dynamic): there is nothing to {do}."


class SumsDiffer(Permanent):
    """Kept sums are not what the rows give."""

    code = "cli.quota-sums-differ"
    exit_code = 6
    sentence = "What is kept of usage differs from the volumes and snapshots: {found}."
    hint = "Count anew with: brickyard-coordinator quota sync. Report it with the support bundle: it should not happen."


@click.group()
def quota() -> None:
    """How usage is counted."""


@quota.command()
@config_options(DEFAULT_CONFIG)
def change(config: Path | None, sets: tuple[str, ...]) -> None:
    """Count as the configuration says (quota.driver, quota.no_snapshot_gb_quota, quota.nested); no coordinator may run.

    With quota.nested the Keystone is asked for the projects above each that has something, and the change is refused
    where one has less than those below it take.
    """
    from coordinator.quota import guard
    from coordinator.state.schema import prepare
    from coordinator.state.usage import RULES

    settings = load(CoordinatorSettings, config, sets)
    checked(settings)
    become_owner(settings)

    def write(conn: Connection) -> list[str]:
        return guard.change(conn, settings.quota)

    with in_its_place(settings) as database:
        database.write_now(prepare)
        database.engine.update_execution_options(**{RULES: guard.rules_of(settings.quota)})
        if settings.quota.nested:
            _learn(settings, database)
        told = database.write_now(write)
    for line in told or ["Nothing has changed: the site counts like that already."]:
        click.echo(line)


def _learn(settings: CoordinatorSettings, database: Database) -> None:
    """Ask the Keystone what lies above the projects that have something; outside of any transaction."""
    from coordinator.identity.keystone import KeystoneAuthenticator
    from coordinator.state import hierarchy

    keystone = settings.identity.keystone
    assert keystone is not None, "the settings see to it"

    async def asked() -> dict[str, tuple[str, ...] | None]:
        prover = KeystoneAuthenticator(keystone)
        try:
            return {one: await prover.ancestors(one) for one in strangers}
        finally:
            await prover.close()

    strangers = database.read_now(hierarchy.strangers)
    for project, above in asyncio.run(asked()).items() if strangers else ():
        if above is not None:
            database.write_now(lambda conn, project=project, above=above: hierarchy.learn(conn, project, above))  # type: ignore[misc]


@quota.command()
@config_options(DEFAULT_CONFIG)
def sync(config: Path | None, sets: tuple[str, ...]) -> None:
    """Make kept sums anew from the volumes and snapshots; a coordinator may be running."""
    from coordinator.state import usage

    if not _run(config, sets, usage.recount):
        click.echo(_NOTHING.format(do="bring in line"))
        return
    click.echo("Counted anew.")


@quota.command()
@config_options(DEFAULT_CONFIG)
def check(config: Path | None, sets: tuple[str, ...]) -> None:
    """Compare kept sums with the volumes and snapshots; a coordinator may be running."""
    found: list[str] = []

    def compare(conn: Connection) -> None:
        from coordinator.state import usage

        found[:] = [
            f"project {project}, type {type_id or 'none'}: kept {kept._asdict()}, there are {there._asdict()}"
            for (project, type_id), kept, there in usage.differences(conn)
        ]

    if not _run(config, sets, compare):
        click.echo(_NOTHING.format(do="compare"))
        return
    if found:
        raise SumsDiffer(found="; ".join(found[:20]))
    click.echo("All sums are right.")


def _run(config: Path | None, sets: tuple[str, ...], work: Callable[[Connection], None]) -> bool:
    """Run `work` in a write where the site keeps sums; whether it does."""
    from coordinator.quota import guard

    settings = load(CoordinatorSettings, config, sets)
    checked(settings)
    become_owner(settings)

    def write(conn: Connection) -> bool:
        if guard.noted(conn).driver != "stored":
            return False
        work(conn)
        return True

    with beside(settings) as database:
        return database.write_now(write)
