"""Usage by the names that quotas have, from the amounts of each volume type."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from coordinator.state.tables.types import volume_types
from coordinator.state.together import once
from coordinator.state.usage import Amounts, by_type, rules


@dataclass(frozen=True, slots=True)
class Usage:
    """Per resource: what is there, and what work under way has reserved."""

    in_use: dict[str, int] = field(default_factory=lambda: {"volumes": 0, "gigabytes": 0, "snapshots": 0})
    reserved: dict[str, int] = field(default_factory=dict)

    def total(self, resource: str) -> int:
        return self.in_use.get(resource, 0) + self.reserved.get(resource, 0)

    def add(self, amounts: Amounts, suffix: str, *, snapshots_take_space: bool) -> None:
        """Add what one type has to the resources with this suffix."""
        space = amounts.gigabytes + (amounts.snapshot_gigabytes if snapshots_take_space else 0)
        found = {"volumes": amounts.volumes, "gigabytes": space, "snapshots": amounts.snapshots}
        for resource, amount in found.items():
            self.in_use[resource + suffix] = self.in_use.get(resource + suffix, 0) + amount
        if amounts.reserved:
            name = f"gigabytes{suffix}"
            self.reserved[name] = self.reserved.get(name, 0) + amounts.reserved


def usage(conn: Connection, project_id: str) -> Usage:
    """What a project uses: `volumes`, `gigabytes`, `snapshots`, each also as `NAME_TYPE`.

    Snapshots count towards gigabytes unless the site says otherwise.
    """
    made, take_space = Usage(), rules(conn).snapshots_take_space
    found = by_type(conn, project_id)
    names = _names(conn, [type_id for type_id in found if type_id])
    for type_id, amounts in found.items():
        made.add(amounts, "", snapshots_take_space=take_space)
        if type_id in names:
            made.add(amounts, f"_{names[type_id]}", snapshots_take_space=take_space)
    return made


def used(conn: Connection, project_id: str) -> dict[str, int]:
    """All that counts against the limits, what is reserved included."""
    found = usage(conn, project_id)
    return {name: found.total(name) for name in {**found.in_use, **found.reserved}}


def _names(conn: Connection, ids: list[str]) -> dict[str, str]:
    if not ids:
        return {}
    query = select(volume_types.c.id, volume_types.c.name).where(volume_types.c.id.in_(ids))
    rows = once(conn, ("type-names", *sorted(ids)), lambda: conn.execute(query).all())
    return {row.id: row.name for row in rows}
