"""Filters by resource, as `GET /resource_filters` tells them and lists honour them."""

from __future__ import annotations

FILTERS: dict[str, tuple[str, ...]] = {
    "volume": (
        "name~", "status", "metadata", "bootable", "migration_status", "availability_zone", "group_id", "size",
        "created_at", "updated_at", "consumes_quota", "display_name", "image_metadata", "multiattach",
    ),
    "snapshot": (
        "name~", "status", "volume_id", "metadata", "availability_zone", "consumes_quota", "display_name",
    ),
    "attachment": ("volume_id", "status", "instance_id", "attach_status"),
    "message": ("resource_uuid", "resource_type", "event_id", "request_id", "message_level"),
    "pool": ("name", "volume_type"),
    "volume_type": ("is_public",),
}  # fmt: skip
"""`name~` allows `name` and, from 3.34, the inexact `name~`."""
