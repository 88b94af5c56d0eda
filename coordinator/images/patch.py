"""The JSON patch that clients change an image with: add, replace, remove of fields, properties and single tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coordinator.images.errors import ImageInvalid
from coordinator.images.fields import READ_ONLY, WRITABLE, checked, checked_properties, checked_property, checked_tags

_CLEARABLE: Mapping[str, Any] = {"name": None, "tags": [], "min_disk": 0, "min_ram": 0}
MAX_OPERATIONS = 1000


@dataclass(frozen=True, slots=True)
class Change:
    """Columns to set, and the whole of the properties afterwards."""

    values: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)


def apply(operations: Any, *, tags: list[str], properties: Mapping[str, str]) -> Change:
    """What is left to write of an image with these tags and properties; raises ImageInvalid."""
    if not isinstance(operations, list) or len(operations) > MAX_OPERATIONS:
        raise ImageInvalid(reason=f"a patch is a list of {MAX_OPERATIONS} operations at most")
    change = Change({"tags": list(tags)}, dict(properties))
    for operation in operations:
        _apply(operation, change)
    checked_properties(change.properties)
    change.values["tags"] = checked_tags(change.values["tags"])
    if change.values["tags"] == list(tags):
        del change.values["tags"]
    return change


def _apply(operation: Any, change: Change) -> None:
    if not isinstance(operation, dict):
        raise ImageInvalid(reason="each operation of a patch is an object")
    op, path = operation.get("op"), operation.get("path")
    if op not in ("add", "replace", "remove"):
        raise ImageInvalid(reason="a patch can only add, replace and remove")
    if op != "remove" and "value" not in operation:
        raise ImageInvalid(reason=f"the operation {op} needs a value")
    if not isinstance(path, str) or not path.startswith("/"):
        raise ImageInvalid(reason="a patch's path begins with a slash")
    names = [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]
    value = operation.get("value")
    if names[0] == "tags" and len(names) == 2:
        _one_tag(op, names[1], value, change.values["tags"])
    elif len(names) != 1:
        raise ImageInvalid(reason=f"the path {path[:80]} leads to nothing that can be changed")
    elif names[0] in WRITABLE:
        _field(op, names[0], value, change)
    else:
        _property(op, names[0], value, change.properties)


def _field(op: str, name: str, value: Any, change: Change) -> None:
    if op == "remove":
        if name not in _CLEARABLE:
            raise ImageInvalid(reason=f"{name} can not be removed")
        value = _CLEARABLE[name]
    change.values[name] = checked(name, value)


def _property(op: str, name: str, value: Any, properties: dict[str, str]) -> None:
    if name in READ_ONLY:
        raise ImageInvalid(reason=f"{name} is read-only")
    if op != "add" and name not in properties:
        raise ImageInvalid(reason=f"there is no property {name[:80]} to {op}")
    if op == "remove":
        del properties[name]
    else:
        properties[name] = checked_property(name, value)


def _one_tag(op: str, place: str, value: Any, tags: list[Any]) -> None:
    last = len(tags) if op == "add" else len(tags) - 1
    if place == "-" and op == "add":
        index = last
    elif place.isascii() and place.isdigit() and len(place) < 6 and int(place) <= last:
        index = int(place)
    else:
        raise ImageInvalid(reason="the patch names a tag that does not exist")
    if op == "add":
        tags.insert(index, value)
    elif op == "replace":
        tags[index] = value
    else:
        del tags[index]
