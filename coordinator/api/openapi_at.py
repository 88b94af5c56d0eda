"""The OpenAPI document as it is at one microversion, by the marks that the whole document bears."""

from __future__ import annotations

from typing import Any

FROM, UP_TO, CLOSED = "x-openstack-min-ver", "x-openstack-max-ver", "x-openstack-closed-ver"
"""The first and last microversion of what bears them; from which on a body takes no further properties."""
OURS = "x-brickyard-min-ver"
"""What exists only for who names a version of `brickyard`, too."""


def named(minor: int) -> str:
    """As marks have it."""
    return f"3.{minor}"


def at(whole: dict[str, Any], minor: int) -> dict[str, Any]:
    """A new document with what there is at 3.`minor`: calls, properties of bodies and answers, closed bodies."""
    paths = {path: {method: call for method, call in calls.items() if _there(call, minor)}
             for path, calls in whole["paths"].items()}  # fmt: skip
    kept = {**whole, "info": {**whole["info"], "version": named(minor)},
            "paths": {path: calls for path, calls in paths.items() if calls}}  # fmt: skip
    made: dict[str, Any] = _cut(kept, minor)
    return made


def number(mark: str) -> int:
    """The minor of a mark."""
    return int(mark.partition(".")[2])


def _there(part: Any, minor: int) -> bool:
    if not isinstance(part, dict):
        return True
    if OURS in part:
        return False
    return number(part.get(FROM, "3.0")) <= minor <= number(part.get(UP_TO, "3.999"))


def _cut(part: Any, minor: int) -> Any:
    if isinstance(part, list):
        return [_cut(item, minor) for item in part if _there(item, minor)]
    if not isinstance(part, dict):
        return part
    made = {name: _cut(value, minor) for name, value in part.items()}
    properties = part.get("properties")
    if isinstance(properties, dict):
        gone = {name for name, value in properties.items() if not _there(value, minor)}
        # Where further properties may be there by nature, these still may not.
        absent = dict.fromkeys(gone, False) if part.get("additionalProperties") else {}
        made["properties"] = {name: value for name, value in made["properties"].items() if name not in gone} | absent
        if isinstance(part.get("required"), list):
            made["required"] = [name for name in part["required"] if name not in gone]
    if CLOSED in part and number(part[CLOSED]) <= minor:
        made["additionalProperties"] = False
    return made
