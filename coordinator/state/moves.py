"""Data that belong elsewhere since a schema: moved in short writes while coordinators work.

A schema only adds. Where it gives data a new place, the release that brings it writes both; a `Move` carries over what
is older; and a later migration that counts on that says so (`needs_moved`) and is refused until nothing is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Select, func, or_, select

from agent.base.errors import Conflict
from agent.base.faults import declare, fault_point
from coordinator.state import volumes
from coordinator.state.locks import held
from coordinator.state.tables.volumes import volume_admin_metadata
from coordinator.state.tables.volumes import volumes as volume_table

BATCH = 200
declare("move.row")


class NotMoved(Conflict):
    code = "state.data-not-moved"
    exit_code = 6
    sentence = "Schema {wanted} counts on data that were not moved yet: {left}. Nothing was changed."
    hint = (
        "Run, with the release that the coordinators run now: brickyard-coordinator db online-data-migrations. "
        "They may go on meanwhile. Then upgrade."
    )


@dataclass(frozen=True, slots=True)
class Move:
    """`todo` selects the ids that are left, `one` moves one of them; both may be repeated, and be killed anywhere."""

    name: str
    todo: Select[tuple[str]]
    one: Callable[[Connection, str], None]


def _temporary_volumes() -> Select[tuple[str]]:
    """What stands in for another volume while that is migrated, or was made for a moment."""
    made_for_a_moment = select(volume_admin_metadata.c.volume_id).where(
        volume_admin_metadata.c.key == "temporary", volume_admin_metadata.c.value.in_(("True", "true"))
    )
    temporary = or_(volume_table.c.migration_status.like("target:%"), volume_table.c.id.in_(made_for_a_moment))
    return select(volume_table.c.id).where(~volume_table.c.deleted, volume_table.c.use_quota, temporary)


MOVES = (
    Move(
        "temporary volumes do not count towards quota",
        _temporary_volumes(),
        lambda conn, volume_id: volumes.set_values(conn, volume_id, use_quota=False),
    ),
)


def batch(conn: Connection, move: Move, most: int) -> int:
    """Move up to `most` in the caller's write; how many. What another one is moving is waited for and left out."""
    found = conn.execute(held(conn, move.todo.order_by("id").limit(most))).scalars().all()
    for one in found:
        move.one(conn, one)
        fault_point("move.row")
    return len(found)


def left(conn: Connection, moves: Iterable[Move] = MOVES) -> Mapping[str, int]:
    """How much is left of each, where there is something."""
    found: dict[str, int] = {}
    for move in moves:
        count = conn.execute(select(func.count()).select_from(move.todo.subquery())).scalar_one()
        if count:
            found[move.name] = int(count)
    return found


def check_moved(conn: Connection, wanted: str, names: Iterable[str]) -> None:
    """Raise NotMoved where something is left that schema `wanted` counts on."""
    asked = set(names)
    found = left(conn, [move for move in MOVES if move.name in asked])
    if found:
        raise NotMoved(wanted=wanted, left=", ".join(f"{count} of '{name}'" for name, count in found.items()))
