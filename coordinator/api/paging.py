"""Limit, marker, sort and counts in list calls, with the wording of Block Storage; links to the next page."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.fields import FALSE, TRUE
from coordinator.state.paging import NEWEST_FIRST, Page

PARAMETERS = ("limit", "marker", "offset", "sort", "sort_key", "sort_dir", "with_count", "all_tenants")
"""Query parameters that are no filters."""
CONFIGURED = 31
"""The microversion from which the site says what users may filter by, and all else is refused."""
_DIRECTIONS = {"asc": False, "desc": True}


def page(call: Call, keys: Mapping[str, str]) -> Page:
    """The page that a request asks for. `keys` maps sort keys of the API to columns; raises BadRequest (400)."""
    most = call.services.settings.max_limit
    limit = _number(call, "limit", most)
    return Page(min(limit, most), call.query.get("marker"), _sorts(call, keys), _number(call, "offset", 0))


def next_links(call: Call, key: str, ids: Sequence[str], asked: Page) -> dict[str, Any]:
    """`{key: [{"rel": "next", ...}]}` when there may be more, else nothing. `ids` are those of the page."""
    if not ids or len(ids) < asked.limit:
        return {}
    query = [(name, value) for name, value in call.query.items() if name not in {"marker", "offset"}]
    href = f"{call.base_url}{call.request.rel_url.raw_path}?{urlencode([*query, ('marker', ids[-1])])}"
    return {key: [{"rel": "next", "href": href}]}


def wants_count(call: Call) -> bool:
    """Whether `with_count` is given (from 3.45; before, it is not a parameter)."""
    return call.version >= 45 and flag(call, "with_count")


def all_projects(call: Call) -> bool:
    """Whether an administrator asks for every project's rows; ignored for others."""
    return call.context.is_admin and flag(call, "all_tenants")


def flag(call: Call, name: str) -> bool:
    """A true or false parameter, false when it is not given; raises BadRequest."""
    value = call.query.get(name, "false").strip().lower()
    if value in TRUE:
        return True
    if value in FALSE or value in {"", "none"}:
        return False
    raise BadRequest(reason=f"Invalid value '{value[:64]}' for {name}. Use one of: true, false.")


@dataclass(frozen=True, slots=True)
class Given:
    """The filters of a list call, and the names of those that it may not or can not be filtered by."""

    values: Mapping[str, str]
    unknown: tuple[str, ...]


def filters(call: Call, allowed: Collection[str], own: Collection[str] = ()) -> Given:
    """The query parameters that filter, among `allowed` (`name~` allows both `name` and, from 3.34, `name~`).

    `own` are parameters of the call that are no filters.
    """
    found: dict[str, str] = {}
    unknown: list[str] = []
    for name, value in call.query.items():
        if name in PARAMETERS and (name != "with_count" or call.version >= 45):
            continue
        if name in own:
            continue
        like = name.endswith("~") and call.version >= 34 and name in allowed
        if like or (not name.endswith("~") and (name in allowed or f"{name}~" in allowed)):
            found[name] = value
        else:
            unknown.append(name)
    if call.version >= CONFIGURED and not all(name.isascii() for name in unknown):
        raise BadRequest(reason="Filter keys can only contain ASCII characters.")
    return Given(found, tuple(sorted(unknown)))


def refuse(unknown: Sequence[str]) -> None:
    """Raise BadRequest when there are any."""
    if unknown:
        raise BadRequest(reason=f"Invalid filters {', '.join(unknown)[:255]} are found in query options.")


def _number(call: Call, name: str, default: int) -> int:
    text = call.query.get(name)
    if text is None or text == "":
        return default
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        raise BadRequest(reason=f"{name} param must be an integer")
    if text.startswith("-"):
        raise BadRequest(reason=f"{name} param must be positive")
    return int(text)


def _sorts(call: Call, keys: Mapping[str, str]) -> tuple[tuple[str, bool], ...]:
    query = call.query
    if "sort" in query:
        if "sort_key" in query or "sort_dir" in query:
            raise BadRequest(reason="The 'sort_key' and 'sort_dir' parameters are deprecated and cannot be used with "
                             "the 'sort' parameter.")  # fmt: skip
        given = [part.strip().partition(":") for part in query["sort"].split(",") if part.strip()]
        pairs = [(name.strip(), direction.strip() or "desc") for name, _, direction in given]
    elif "sort_key" in query or "sort_dir" in query:
        names, directions = query.get("sort_key", "created_at").split(","), query.get("sort_dir", "desc").split(",")
        if len(directions) > len(names):
            raise BadRequest(reason="Sort direction array size exceeds sort key array size.")
        directions += [directions[-1]] * (len(names) - len(directions))
        pairs = list(zip((name.strip() for name in names), (word.strip() for word in directions), strict=True))
    else:
        return NEWEST_FIRST
    sorts = [(_column(name, keys), _descending(direction)) for name, direction in pairs]
    if not sorts:
        return NEWEST_FIRST
    present = {column for column, _ in sorts}
    sorts += [(column, sorts[0][1]) for column, _ in NEWEST_FIRST if column not in present]
    return tuple(dict(sorts).items())


def _column(name: str, keys: Mapping[str, str]) -> str:
    if name not in keys:
        raise BadRequest(reason="Invalid input received: Invalid sort key")
    return keys[name]


def _descending(word: str) -> bool:
    if word not in _DIRECTIONS:
        raise BadRequest(reason="Invalid input received: Unknown sort direction, must be 'desc' or 'asc'.")
    return _DIRECTIONS[word]
