"""Lists below `/brickyard/v1`: `limit` and `marker`, and `next_marker` in the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.paging import page
from coordinator.state.paging import NEWEST_FIRST, Page

PAGING = ("limit", "marker")


def asked(call: Call, sorts: tuple[tuple[str, bool], ...] = NEWEST_FIRST) -> Page:
    """The page that a request asks for, in a fixed order."""
    found = page(call, {})
    return replace(found, sorts=sorts, limit=max(1, found.limit))


def next_marker(ids: list[str], of: Page) -> str | None:
    """The marker of the next page; None when this one is the last."""
    return ids[-1] if ids and len(ids) == of.limit else None


def whole(call: Call, name: str, default: int, most: int) -> int:
    """A whole number from the query, at most `most`; raises BadRequest."""
    text = call.query.get(name)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise BadRequest(reason=f"{name} must be a whole number")
    return min(int(text), most)


def picked(row: Any, *names: str) -> dict[str, Any]:
    """These columns of a row."""
    return {name: getattr(row, name) for name in names}
