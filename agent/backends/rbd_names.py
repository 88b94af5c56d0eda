"""What images are called in a pool: `byv-ID` a volume, `bys-ID` a snapshot, `byp-ID` half-made.

A snapshot is an image of its own that shares its data, so that neither it nor its volume ever keeps the other from
going. Each has one snapshot of Ceph's (`BASE`), of which clones are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent.backends.base import Kind
from agent.base.errors import Invalid
from agent.base.ids import checked_id

BASE = "by-base"
MOMENT = "by-for-"
"""Before the id of a clone: the moment of its source that it is made of."""
_PREFIXES: dict[Kind, str] = {"volume": "byv-", "snapshot": "bys-", "leftover": "byp-"}


def image(kind: Kind, ident: str) -> str:
    return _PREFIXES[kind] + ident


def parsed(name: str) -> tuple[Kind, str] | None:
    """Kind and id behind an image's name; None when it is not one of ours."""
    for kind, prefix in _PREFIXES.items():
        if name.startswith(prefix):
            try:
                return kind, checked_id(name.removeprefix(prefix), kind)
            except Invalid:
                return None
    return None


@dataclass(frozen=True, slots=True)
class Image:
    """An image as `rbd info` tells it; `parent` names pool and image id of what it shares data with. Bytes."""

    id: str
    size: int
    snapshots: int
    parent: tuple[str, str] | None


def of_info(told: dict[str, Any]) -> Image:
    above = told.get("parent")
    parent = (str(above["pool"]), str(above["id"])) if above else None
    return Image(str(told["id"]), int(told["size"]), int(told.get("snapshot_count", 0)), parent)


@dataclass(frozen=True, slots=True)
class Listed:
    """An image as the pool's list tells it: `snapshots` by name, `parent` the image that it shares data with."""

    name: str
    size: int
    parent: str
    snapshots: frozenset[str]


def of_list(rows: list[dict[str, Any]]) -> list[Listed]:
    snapshots: dict[str, set[str]] = {}
    for row in rows:
        if "snapshot" in row:
            snapshots.setdefault(row["image"], set()).add(row["snapshot"])
    return [
        Listed(
            row["image"], int(row["size"]), str((row.get("parent") or {}).get("image", "")),
            frozenset(snapshots.get(row["image"], ())),
        )
        for row in rows
        if "snapshot" not in row
    ]  # fmt: skip
