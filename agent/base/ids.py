"""Identifiers, as types of their own so that mypy tells a volume from a host."""

from __future__ import annotations

import re
import uuid
from typing import NewType

from agent.base.errors import Invalid

VolumeId = NewType("VolumeId", str)
SnapshotId = NewType("SnapshotId", str)
AttachmentId = NewType("AttachmentId", str)
ImageId = NewType("ImageId", str)
HostId = NewType("HostId", str)
OperationId = NewType("OperationId", str)
JobKey = NewType("JobKey", str)

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def new_id() -> str:
    """A fresh random UUID in its canonical form (lower case, with dashes)."""
    return str(uuid.uuid4())


def is_id(text: str) -> bool:
    """Whether `text` is a canonical lower-case UUID."""
    return _UUID.fullmatch(text) is not None


def checked_id(text: str, noun: str) -> str:
    """Return `text` when it is a canonical UUID; raise `Invalid` otherwise (it may become part of a path)."""
    if not is_id(text):
        raise Invalid(reason=f"{noun} {text[:64]!r} is not a UUID.")
    return text


def checked_name(text: str, noun: str) -> str:
    """Return `text` when it is a plain name (letters, digits, `_.-`, 63 at most); raise `Invalid` otherwise."""
    if not _NAME.fullmatch(text):
        raise Invalid(reason=f"{noun} {text[:64]!r} is not a plain name (letters, digits, '_', '.', '-').")
    return text
