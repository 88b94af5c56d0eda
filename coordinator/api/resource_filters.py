"""Which filters users may use in lists: the site's file, else the built-in choice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agent.base.log import get_logger

_log = get_logger(__name__)
BUILTIN: dict[str, tuple[str, ...]] = {
    "volume": (
        "name~", "status", "metadata", "bootable", "migration_status", "availability_zone", "group_id", "size",
        "created_at", "updated_at", "consumes_quota", "display_name", "image_metadata", "multiattach",
    ),
    "backup": ("name~", "status", "volume_id"),
    "snapshot": (
        "name~", "status", "volume_id", "metadata", "availability_zone", "consumes_quota", "display_name",
    ),
    "group": ("name",),
    "group_snapshot": ("name", "status", "group_id"),
    "attachment": ("volume_id", "status", "instance_id", "attach_status"),
    "message": ("resource_uuid", "resource_type", "event_id", "request_id", "message_level"),
    "pool": ("name", "volume_type"),
    "volume_type": ("is_public", "extra_specs", "name"),
}  # fmt: skip
"""`name~` allows `name` and, from 3.34, the inexact `name~`. The `cinder` shell looks for types by their name."""


@dataclass(frozen=True, slots=True)
class ResourceFilters:
    """Names of filters by resource."""

    names: Mapping[str, tuple[str, ...]]

    @classmethod
    @cache
    def builtin(cls) -> ResourceFilters:
        return cls(BUILTIN)

    @classmethod
    def from_file(cls, path: Path) -> ResourceFilters:
        """A JSON object of lists, as Cinder's `resource_filters.json`.

        A file that can not be read allows users no filter at all: lists must not stop the service.
        """
        try:
            found = json.loads(path.read_text())
            if not isinstance(found, dict) or not all(_names(names) for names in found.values()):
                raise ValueError("it is not an object of lists of names")
        except (OSError, ValueError) as error:
            _log.error(
                "the file of resource filters is not used: users can not filter", path=str(path), reason=str(error)
            )
            return cls({})
        return cls({resource: tuple(names) for resource, names in found.items()})

    def of(self, resource: str) -> tuple[str, ...]:
        """The filters of one resource; none for one that is not there."""
        return self.names.get(resource, ())


def _names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
