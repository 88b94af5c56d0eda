"""Logical volumes that others made, and what is released: taken in and let go by a rename, without a copy."""

from __future__ import annotations

from agent.backends.abilities import Foreign
from agent.backends.lvm_report import Volume
from agent.backends.lvm_space import Space
from agent.host import lvm as names


def released_name(kind: str, old_id: str, source: str) -> str:
    """What something is called once it is not managed any more."""
    return f"volume-{old_id}" if kind == "volume" else f"{source}.snapshot-{old_id}"


def listing(space: Space) -> list[Foreign]:
    """All foreign volumes of the back end's own place, with what speaks against each."""
    return [
        Foreign(
            "snapshot" if volume.origin else "volume", volume.lv_name, volume.exact, objection(volume), _origin(volume)
        )
        for volume in space.group.volumes
        if names.parsed_name(volume.lv_name) is None
        and volume.pool_lv == (space.config.pool or "")
        and "pool" not in volume.lv_layout.split(",")
    ]


def objection(volume: Volume) -> str:
    """Why it can not be adopted; empty when it can."""
    if not names.is_plain_name(volume.lv_name):
        return "its name is one that LVM keeps for itself"
    if not set(volume.lv_layout.split(",")) <= {"linear", "striped", "thin", "sparse"}:
        return f"its layout is {volume.lv_layout}"
    if volume.lv_attr[5:6] == "o":
        return "it is in use on this host"
    if volume.lv_attr[1:2] == "r":
        return "it is read-only"
    return ""


def _origin(volume: Volume) -> str:
    """The name of what it is a snapshot of, as the caller knows it: released volumes keep theirs."""
    parsed = names.parsed_name(volume.origin)
    return f"volume-{parsed[1]}" if parsed is not None else volume.origin
