"""Scheduler hints of a new volume: kept as the caller gave them, looked up when the volume is placed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from agent.base.errors import Invalid
from agent.base.ids import is_id
from coordinator.scheduler.request import Hints
from coordinator.state.tables.volumes import volumes

_SAME, _DIFFERENT = "same_host", "different_host"
_ALIASES = {_SAME: "same_backend", _DIFFERENT: "different_backend"}
_NOWHERE = frozenset({""})
# It is asked of every pool, while the volume is accepted: others wait for that.
_LONGEST_QUERY = 4096


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The hints that are known, in their plainest form; others are ignored, as other services read them. Invalid."""
    kept: dict[str, Any] = {}
    for name, alias in _ALIASES.items():
        value = given.get(name, given.get(alias))
        if value is not None:
            kept[name] = _ids(name, value)
    if given.get("query") is not None:
        if not isinstance(given["query"], str) or len(given["query"]) > _LONGEST_QUERY:
            raise Invalid(
                reason=f"Invalid input for field/attribute query: it must be a JSON text of {_LONGEST_QUERY} "
                "characters at most."
            )
        kept["query"] = given["query"]
    if given.get("local_to_instance") is not None:
        raise Invalid(reason="Invalid input: hint local_to_instance needs a compute service, and this site has none.")
    return kept


def resolved(conn: Connection, project_id: str, kept: Mapping[str, Any]) -> Hints:
    """Where the named volumes of this project lie; one that can not be found is nowhere: beside it is no place."""
    same = _places(conn, project_id, kept.get(_SAME, []))
    return Hints(
        same=(same or _NOWHERE) if _SAME in kept else frozenset(),
        different=_places(conn, project_id, kept.get(_DIFFERENT, [])),
        query=kept.get("query"),
    )


def _ids(name: str, value: Any) -> list[str]:
    found = value if isinstance(value, list) else [value]
    plain = all(isinstance(one, str) and is_id(one) for one in found)
    if not found or not plain or len(set(found)) != len(found):
        raise Invalid(
            reason=f"Invalid input for field/attribute {name}: it must be a volume's UUID, or several different ones."
        )
    return found


def _places(conn: Connection, project_id: str, ids: list[str]) -> frozenset[str]:
    if not ids:
        return frozenset()
    mine = select(volumes.c.host_id, volumes.c.backend).where(
        volumes.c.id.in_(ids), volumes.c.project_id == project_id, volumes.c.deleted_at.is_(None)
    )
    return frozenset(f"{row.host_id}@{row.backend}" for row in conn.execute(mine) if row.host_id)
