"""What a list of images is narrowed to, in which order and how far: read from the query string."""

from __future__ import annotations

from typing import Any

from multidict import MultiMapping

from coordinator.images.errors import ImageInvalid
from coordinator.images.fields import VISIBILITIES
from coordinator.state.images import SORT_KEYS, Filters, Page

DEFAULT_LIMIT = 100
_MOST = 128
_EQUAL = ("id", "name", "status", "disk_format", "container_format", "checksum", "os_hash_value")
_NUMBERS = ("min_disk", "min_ram")
_PAGING = frozenset({"limit", "marker", "sort", "sort_key", "sort_dir"})
_IGNORED = frozenset({"member_status", "os_hidden"})
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def page_of(query: MultiMapping[str], maximum: int) -> Page:
    """Limit (at most `maximum`), marker and order; raises ImageInvalid."""
    limit = min(_number(query, "limit", DEFAULT_LIMIT), maximum)
    return Page(limit, query.get("marker"), _sort(query))


def filters_of(query: MultiMapping[str], project_id: str | None) -> Filters:
    """What `project_id` (None: all) may see, narrowed; a key that is no field is a property. Raises ImageInvalid."""
    equal: dict[str, Any] = {}
    properties: dict[str, str] = {}
    for key in query:
        value = query[key]
        if key in _EQUAL:
            equal[key] = value
        elif key in _NUMBERS:
            equal[key] = _number(query, key, 0)
        elif key == "protected":
            equal[key] = boolean(value, key)
        elif key not in _PAGING | _IGNORED | {"owner", "visibility", "tag", "size_min", "size_max"}:
            properties[key] = value
    tags = tuple(query.getall("tag", []))
    if len(properties) + len(tags) > _MOST:
        raise ImageInvalid(reason=f"images can be narrowed to {_MOST} properties and tags at most")
    visibility = query.get("visibility")
    if visibility not in (None, "all", *VISIBILITIES):
        raise ImageInvalid(reason=f"visibility must be all or one of {', '.join(VISIBILITIES)}")
    return Filters(
        project_id=project_id,
        owner=query.get("owner"),
        visibility=None if visibility == "all" else visibility,
        equal=equal,
        tags=tags,
        properties=properties,
        size_min=_number(query, "size_min", 0) if "size_min" in query else None,
        size_max=_number(query, "size_max", 0) if "size_max" in query else None,
    )


def boolean(value: str, key: str) -> bool:
    found = _BOOLEANS.get(value.lower())
    if found is None:
        raise ImageInvalid(reason=f"{key} must be true or false")
    return found


def _sort(query: MultiMapping[str]) -> tuple[tuple[str, str], ...]:
    if "sort" in query:
        parts = [part.partition(":") for part in query["sort"].split(",")]
        keys = [(key.strip(), direction.strip() or "desc") for key, _, direction in parts]
    else:
        names = query.getall("sort_key", []) or ["created_at"]
        directions = query.getall("sort_dir", [])
        last = directions[-1] if directions else "desc"
        keys = [(name, directions[at] if at < len(directions) else last) for at, name in enumerate(names)]
    for key, direction in keys:
        if key not in SORT_KEYS or direction not in ("asc", "desc"):
            raise ImageInvalid(reason=f"images can be sorted by {', '.join(SORT_KEYS)}, asc or desc")
    if len({key for key, _ in keys}) != len(keys):
        raise ImageInvalid(reason="a sort key is given twice")
    return tuple(keys)


def _number(query: MultiMapping[str], key: str, default: int) -> int:
    text = query.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ImageInvalid(reason=f"{key} must be a whole number of at least 0")
    return int(text)
