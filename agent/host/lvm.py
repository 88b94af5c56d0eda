"""How LVM and device-mapper name what Brickyard keeps in a volume group. Pure; both sides of privsep use it.

A logical volume is called after its part and id, and carries the bytes that were asked for as a tag, as LVM itself
only knows whole extents. An attachment is a linear device of exactly that many bytes on top of it.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from agent.base.ids import is_id

Part = Literal["volume", "snapshot", "partial", "dying"]
"""`partial` is half-made, `dying` is being wiped."""
PARTS: tuple[Part, ...] = get_args(Part)

TAG = "brickyard"
BYTES_TAG = "brickyard.bytes="
ZEROED_TAG = "brickyard.zeroed"
NAME_TAG = "brickyard.name="
ATTACHED_PREFIX = "brickyard-lv-"
ATTACHED_UUID = "BRICKYARD-"
_PREFIXES: dict[Part, str] = {"volume": "byv", "snapshot": "bys", "partial": "byp", "dying": "byd"}
_PARTS = {prefix: part for part, prefix in _PREFIXES.items()}
_PLAIN = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]{0,126}")
_BOUNDARY = re.compile(r"(?<!-)-(?!-)")
_RESERVED = re.compile(r"_(cdata|cmeta|corig|mimage|mlog|pmspare|rimage|rmeta|tdata|tmeta|vdata|vorigin)")


def volume_name(part: Part, ident: str) -> str:
    """The logical volume's name; `ident` is a canonical UUID."""
    return f"{_PREFIXES[part]}-{ident}"


def parsed_name(name: str) -> tuple[Part, str] | None:
    """Part and id of a logical volume of ours; None for everything else."""
    prefix, _, ident = name.partition("-")
    part = _PARTS.get(prefix)
    return (part, ident) if part is not None and is_id(ident) else None


def is_plain_name(name: str) -> bool:
    """Whether LVM takes it as the name of a group or volume, and it can not be an option or a path."""
    return _PLAIN.fullmatch(name) is not None and name not in {".", ".."} and _RESERVED.search(name) is None


def mapper_title(group: str, name: str) -> str:
    """The name of a logical volume in /dev/mapper: dashes of both names are doubled."""
    return f"{group.replace('-', '--')}-{name.replace('-', '--')}"


def split_title(title: str) -> tuple[str, str] | None:
    """Group and logical volume of a name in /dev/mapper; None when it is no plain logical volume's."""
    parts = _BOUNDARY.split(title)
    if len(parts) != 2 or not all(parts):
        return None
    return parts[0].replace("--", "-"), parts[1].replace("--", "-")


def device_uuid(group_uuid: str, volume_uuid: str) -> str:
    """The device-mapper UUID of an active logical volume."""
    return f"LVM-{group_uuid.replace('-', '')}{volume_uuid.replace('-', '')}"


def exact_bytes(tags: str, size: int) -> int:
    """The bytes that were asked for, as the tags say; a volume without that tag has all of its `size`."""
    for tag in tags.split(","):
        number = tag.removeprefix(BYTES_TAG)
        if tag != number and number.isdigit() and 0 < int(number) <= size:
            return int(number)
    return size


def rounded(size: int, extent: int) -> int:
    """`size` in whole extents; all are bytes."""
    return -(-size // extent) * extent
