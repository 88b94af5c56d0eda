"""`db purge`, `db archive`, `db upgrade`, `db online-data-migrations`."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import click

from agent.base.config import load
from agent.base.errors import Conflict
from agent.base.terminal.config import config_options
from coordinator.cli.offline.site import become_owner, beside, checked, in_its_place
from coordinator.server.settings import DEFAULT_CONFIG, CoordinatorSettings


class MoreToMove(Conflict):
    """`--max-count` was reached."""

    code = "cli.more-to-move"
    exit_code = 1
    sentence = "There is more to be moved: {left}."
    hint = "Run it again: brickyard-coordinator db online-data-migrations."


_EPOCH = datetime.datetime(1970, 1, 1)


def _age(_: click.Context, __: click.Parameter, days: float | None) -> float | None:
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    if days is not None and not 0 <= days <= (now - _EPOCH).days:
        raise click.BadParameter(f"{days:g} days ago is not between now and 1970.")
    return days


@click.command()
@click.argument("days", required=False, type=float, callback=_age)
@click.option("--dry-run", is_flag=True, help="Only tell how many rows would go; change nothing.")
@config_options(DEFAULT_CONFIG)
def purge(days: float | None, *, dry_run: bool, config: Path | None, sets: tuple[str, ...]) -> None:
    """Drop old rows now, as long kept as [housekeeping] says; a coordinator may be running (it does so by itself).

    With DAYS, rows of what was deleted longer ago than that go too, archived or not.
    """
    from coordinator.server.housekeeping import kept
    from coordinator.state.purge import drop, due, going

    settings = load(CoordinatorSettings, config, sets)
    settings.testing.apply()
    checked(settings)
    become_owner(settings)
    limits = kept(settings.housekeeping, settings.notifications.receivers)
    if days is not None:
        age = datetime.timedelta(days=days)
        limits = replace(limits, deleted=age, archived=age)
    dropped: dict[str, int] = {}
    with beside(settings) as database:
        if dry_run:
            dropped = database.read_now(lambda conn: going(conn, limits))
        while not dry_run and (found := database.read_now(lambda conn: due(conn, limits))):
            counts = database.write_now(lambda conn, found=found: drop(conn, limits, found))  # type: ignore[misc]
            if not any(counts.values()):
                break
            _add(dropped, counts)
    for name, count in dropped.items():
        click.echo(f"{name}: {count} {'would be dropped' if dry_run else 'dropped'}")
    if not dropped:
        click.echo("Nothing is past its time.")


@click.command()
@click.option("--older-than", "days", type=float, callback=_age, metavar="DAYS", help="Deleted longer ago than that.")
@click.option("--before", type=click.DateTime(), help="Deleted before then (UTC).")
@click.option("--max", "most", type=click.IntRange(1), metavar="N", help="At most so many rows of each table.")
@config_options(DEFAULT_CONFIG)
def archive(
    *, days: float | None, before: datetime.datetime | None, most: int | None, config: Path | None,
    sets: tuple[str, ...],
) -> None:  # fmt: skip
    """Move the rows of what was deleted out of the tables that are worked with; a coordinator may be running.

    They go into the table `archive`, each with all its parts, and are kept for housekeeping.archived_days. Killed at
    any moment and run again, nothing is lost or doubled.
    """
    from coordinator.state import archiving

    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    if days is not None and before is not None:
        raise click.UsageError("Give one of --older-than and --before.")
    if before is not None and before > now:
        raise click.UsageError(f"{before} is in the future.")
    until = before or now - datetime.timedelta(days=days or 0)
    settings = load(CoordinatorSettings, config, sets)
    settings.testing.apply()
    checked(settings)
    become_owner(settings)
    moved: dict[str, int] = {}
    with beside(settings) as database:
        while True:
            counts = database.write_now(lambda conn: archiving.move(conn, until, most, moved))
            if not counts:
                break
            _add(moved, counts)
        left = database.read_now(lambda conn: archiving.left(conn, until))
    for name, count in moved.items():
        click.echo(f"{name}: {count} archived")
    for name, count in left.items():
        click.echo(f"{name}: {count} kept, as something that is not archived refers to them")
    if not moved:
        click.echo("Nothing to archive.")


@click.command()
@click.option("--check", "only_check", is_flag=True, help="Change nothing; say what would be done or is in the way.")
@config_options(DEFAULT_CONFIG)
def upgrade(*, only_check: bool, config: Path | None, sets: tuple[str, ...]) -> None:
    """Bring the database to this release's schema; make a backup first.

    On SQLite the coordinator must be stopped. On PostgreSQL those of the release before may work on meanwhile, and are
    then replaced one by one; one that is started anew must be of this release. With --check coordinators may be running
    on SQLite, too; exit code 6 where something is in the way: data that were not moved, a newer schema, or agents that
    would get no work, as they are older than the release before this one.
    """
    from coordinator.cli.offline.outlook import look
    from coordinator.state.upgrade import upgrade_all

    settings = load(CoordinatorSettings, config, sets)
    settings.testing.apply()
    checked(settings)
    if only_check:
        for line in look(settings):
            click.echo(line)
        return
    become_owner(settings)
    with in_its_place(settings, rolling=True) as database:
        before, after = upgrade_all(database)
    click.echo(f"Schema {after} already." if before == after else f"Schema {before or 'none'} upgraded to {after}.")


@click.command("online-data-migrations")
@click.option("--max-count", "most", type=click.IntRange(1), metavar="N", help="Move at most so many rows.")
@config_options(DEFAULT_CONFIG)
def online_data_migrations(most: int | None, config: Path | None, sets: tuple[str, ...]) -> None:
    """Move data to where this release looks for them, in short writes; a coordinator may be running.

    Exit code 0 when nothing is left, 1 when there is more to do. Killed at any moment and run again, or run twice at
    once, nothing is lost or moved twice.
    """
    from coordinator.quota import guard
    from coordinator.state import moves
    from coordinator.state.usage import RULES

    settings = load(CoordinatorSettings, config, sets)
    settings.testing.apply()
    checked(settings)
    become_owner(settings)
    with beside(settings) as database:
        rules = guard.rules_of(database.read_now(guard.noted))
        database.engine.update_execution_options(**{RULES: rules})
        for move in moves.MOVES:
            moved = 0
            while (room := moves.BATCH if most is None else min(moves.BATCH, most)) > 0:
                count = database.write_now(lambda conn, move=move, room=room: moves.batch(conn, move, room))  # type: ignore[misc]
                moved += count
                most = most if most is None else most - count
                if count == 0 and not database.read_now(lambda conn, move=move: moves.left(conn, [move])):  # type: ignore[misc]
                    break
            if moved:
                click.echo(f"{move.name}: {moved} moved")
        left = database.read_now(moves.left)
    if left:
        raise MoreToMove(left=", ".join(f"{count} of '{name}'" for name, count in left.items()))
    click.echo("Nothing is left to be moved.")


def _add(total: dict[str, int], counts: dict[str, int]) -> None:
    for name, count in counts.items():
        total[name] = total.get(name, 0) + count
