"""What an image may be: checking the fields and properties that its owner gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agent.base.ids import is_id
from coordinator.images import info
from coordinator.images.errors import ImageInvalid

DISK_FORMATS = ("raw", "qcow2", "luks")
CONTAINER_FORMATS = ("bare", "luks", "compressed")
VISIBILITIES = ("public", "private", "shared", "community")
WRITABLE = frozenset(
    {"name", "visibility", "protected", "disk_format", "container_format", "min_disk", "min_ram", "tags"}
)
READ_ONLY = frozenset(
    {
        "id", "owner", "status", "size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "created_at",
        "updated_at", "self", "file", "schema", "direct_url", "locations", "os_hidden", "stores", "deleted",
    }
)  # fmt: skip
MAX_PROPERTIES = 128
MAX_TAGS = 128
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def checked(name: str, value: Any) -> Any:
    """The value of a writable field as it is stored; raises ImageInvalid."""
    match name:
        case "name":
            return None if value is None else _text(name, value)
        case "visibility":
            return _one_of(name, value, VISIBILITIES)
        case "disk_format":
            return None if value is None else _one_of(name, value, DISK_FORMATS)
        case "container_format":
            return None if value is None else _one_of(name, value, CONTAINER_FORMATS)
        case "protected":
            if not isinstance(value, bool):
                raise ImageInvalid(reason="protected must be true or false")
            return value
        case "min_disk" | "min_ram":
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
                raise ImageInvalid(reason=f"{name} must be a whole number of at least 0")
            return value
        case "tags":
            return checked_tags(value)
    raise ImageInvalid(reason=f"{name} can not be set")


def checked_tags(value: Any) -> list[str]:
    """Each tag once, in the order given."""
    if not isinstance(value, list):
        raise ImageInvalid(reason="tags must be a list")
    tags = list(dict.fromkeys(_text("a tag", tag) for tag in value))
    if len(tags) > MAX_TAGS:
        raise ImageInvalid(reason=f"an image has {MAX_TAGS} tags at most")
    return tags


def checked_property(key: str, value: Any) -> str:
    """The value of a free property; raises ImageInvalid, also for what is not ours to set."""
    if key in READ_ONLY:
        raise ImageInvalid(reason=f"{key} is read-only")
    if not _KEY.fullmatch(key):
        raise ImageInvalid(reason="a property's name has 1 to 255 printable characters without blanks")
    if not isinstance(value, str):
        raise ImageInvalid(reason=f"property {key} must be a string")
    if len(value) > 65535:
        raise ImageInvalid(reason=f"property {key} is longer than 65535 characters")
    if key in info.KEY_ID and not is_id(value):
        raise ImageInvalid(reason=f"{key} must be the id of a secret")
    if key in info.KEY_POLICY and value not in (info.DELETE_WITH_IMAGE, info.KEEP):
        raise ImageInvalid(reason=f"{key} must be {info.DELETE_WITH_IMAGE} or {info.KEEP}")
    if key == info.DECRYPT_SIZE and not (value.isascii() and value.isdigit() and len(value) < 19):
        raise ImageInvalid(reason=f"{key} must be a number of bytes")
    if key == info.FORMAT and not value.upper().startswith("LUKS"):
        raise ImageInvalid(reason=f"{key} must be LUKSv1 or LUKSv2; other encryption is not supported")
    return value


def checked_properties(values: Mapping[str, Any]) -> dict[str, str]:
    if len(values) > MAX_PROPERTIES:
        raise ImageInvalid(reason=f"an image has {MAX_PROPERTIES} properties at most")
    return {key: checked_property(key, value) for key, value in values.items()}


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 255:
        raise ImageInvalid(reason=f"{name} must be a string of 255 characters at most")
    return value


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ImageInvalid(reason=f"{name} must be one of {', '.join(allowed)}")
    return str(value)
