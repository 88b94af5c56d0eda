"""Events in the words of Cinder's notifications, as Ceilometer and its like read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.notifications.event import Event

_WORKS = {
    "create_volume": "volume.create",
    "delete_volume": "volume.delete",
    "delete_cascade": "volume.delete",
    "extend_volume": "volume.resize",
    "revert_volume": "volume.revert",
    "reimage_volume": "volume.reimage",
    "manage_volume": "volume.manage_existing",
    "unmanage_volume": "volume.unmanage",
    "create_snapshot": "snapshot.create",
    "delete_snapshot": "snapshot.delete",
    "manage_snapshot": "snapshot.manage_existing_snapshot",
    "unmanage_snapshot": "snapshot.unmanage",
    "attach_host": "volume.attach",
    "detach_host": "volume.detach",
    "attach_volume": "volume.attach",
    "detach_volume": "volume.detach",
    "retype_volume": "volume.retype",
    "recrypt_volume": "volume.retype",
    "update_volume": "volume.update",
    "update_snapshot": "snapshot.update",
    "transfer_create": "volume.transfer.create",
    "transfer_accept": "volume.transfer.accept",
    "transfer_delete": "volume.transfer.delete",
}
_CACHE = frozenset(f"image_volume_cache.{what}" for what in ("hit", "miss", "evict"))
_PUBLISHERS = {
    "volume_type": "volumeType",
    "volume_type_extra_specs": "volumeTypeExtraSpecs",
    "volume_type_encryption": "volumeTypeEncryption",
    "volume_type_project": "volume_type_project",
    "qos_specs": "QoSSpecs",
}
"""What is told of in Cinder's own words already, and who says so there."""
_ENDS = {"start": "start", "end": "end", "error": "error"}


def named(event: Event) -> tuple[str, str] | None:
    """Event type and publisher (`volume.HOST`); None for what Cinder has no word for."""
    if event.type in _CACHE:
        return event.type, f"volume.{event.payload['host']}"
    if (says := _PUBLISHERS.get(event.type.partition(".")[0])) is not None:
        return event.type, f"{says}.brickyard"
    kind, _, end = event.type.rpartition(".")
    word, last = _WORKS.get(kind), _ENDS.get(end)
    if word is None or last is None:
        return None
    service = word.split(".")[0]
    volume = event.payload.get("volume") or {}
    return f"{word}.{last}", f"{service}.{volume.get('host') or 'brickyard'}"


def payload(event: Event) -> dict[str, Any]:
    """The body as Cinder fills it, for a volume or a snapshot; what ended badly says why."""
    known = event.payload
    if event.type in _CACHE:
        return {"image_id": known["image_id"], "host": known["host"]}
    if event.type.partition(".")[0] in _PUBLISHERS:
        return {name: value for name, value in known.items() if name != "user_id"}
    if "snapshot" in known:
        body = _snapshot(event, known["snapshot"])
    elif "volume" in known:
        body = _volume(event, known["volume"])
    else:
        body = {"tenant_id": event.project_id, **known}
    if known.get("error"):
        body["error"] = known["error"].get("code")
        body["fail_reason"] = known["error"].get("message")
    return body


def _volume(event: Event, volume: Mapping[str, Any]) -> dict[str, Any]:
    attached = event.payload.get("attachment")
    return {
        "tenant_id": event.project_id,
        "host": volume["host"],
        "user_id": volume["user_id"],
        "availability_zone": volume["availability_zone"],
        "volume_id": volume["id"],
        "volume_type": volume["volume_type_id"],
        "display_name": volume["name"],
        "launched_at": volume["launched_at"],
        "created_at": volume["created_at"],
        "status": volume["status"],
        "snapshot_id": volume["snapshot_id"],
        "size": volume["size"],
        "replication_status": None,
        "replication_extended_status": None,
        "replication_driver_data": None,
        "metadata": dict(volume["metadata"]),
        "volume_attachment": [_attachment(attached)] if attached else [],
    }


def _attachment(attached: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": attached["id"],
        "volume_id": attached["volume_id"],
        "instance_uuid": attached["instance_id"],
        "attached_host": attached["attached_host"],
        "mountpoint": attached["mountpoint"],
        "attach_mode": attached["attach_mode"],
        "attach_status": attached["attach_status"],
    }


def _snapshot(event: Event, snapshot: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tenant_id": event.project_id,
        "user_id": snapshot["user_id"],
        "availability_zone": (event.payload.get("volume") or {}).get("availability_zone", ""),
        "volume_id": snapshot["volume_id"],
        "volume_size": snapshot["volume_size"],
        "snapshot_id": snapshot["id"],
        "display_name": snapshot["name"],
        "created_at": snapshot["created_at"],
        "status": snapshot["status"],
        "deleted": "" if not event.type.endswith("delete_snapshot.end") else event.at.isoformat(),
        "metadata": str(dict(snapshot["metadata"])),
    }
