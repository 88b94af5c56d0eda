"""The numbers and words by which Block Storage clients know what a user message is about.

`VOLUME_RESOURCE_ACTION_DETAIL` is the event, `ACTION:DETAIL` how the text begins. Actions from 900 on are our own:
there is no number for them elsewhere.
"""

from __future__ import annotations

from agent.base.errors import BrickyardError
from coordinator.state import outward
from coordinator.state.operations import Operation

Words = tuple[str, str]
_UNKNOWN: Words = ("001", "An unknown error occurred.")
_NOT_READY: Words = ("002", "Driver is not initialized at present.")
_NO_POOL: Words = ("003", "Could not find any available weighted backend.")
_NO_SPACE: Words = ("007", "Image used for creating volume exceeds available space.")
_QUOTA: Words = ("006", "Not enough quota resource for operation.")
_UPLOAD: Words = ("004", "Failed to upload volume to image at backend.")

_ACTIONS: dict[str, tuple[Words, Words]] = {
    "create_volume": (("008", "create volume from backend storage"), ("012", "Driver failed to create the volume.")),
    "delete_volume": (("901", "delete volume"), _UNKNOWN),
    "extend_volume": (("007", "extend volume"), ("010", "Volume Driver failed to extend volume.")),
    "create_snapshot": (("009", "create snapshot"), ("013", "Snapshot failed to create.")),
    "delete_snapshot": (("010", "delete snapshot"), ("016", "Snapshot failed to delete.")),
    "attach_host": (("002", "attach volume"), ("021", "Failed to attach volume.")),
    "detach_host": (("902", "detach volume"), ("022", "Failed to detach volume.")),
    "connect_volume": (("004", "update attachment"), ("021", "Failed to attach volume.")),
    "disconnect_volume": (("902", "detach volume"), ("022", "Failed to detach volume.")),
    "upload_volume": (("003", "copy volume to image"), _UPLOAD),
    "upload_to_service": (("003", "copy volume to image"), _UPLOAD),
    "reimage_volume": (("016", "reimage volume"), _UNKNOWN),
    "unmanage_volume": (("006", "unmanage volume"), _UNKNOWN),
    "manage_volume": (("903", "manage volume"), _UNKNOWN),
    "manage_snapshot": (("904", "manage snapshot"), _UNKNOWN),
    "unmanage_snapshot": (("905", "unmanage snapshot"), _UNKNOWN),
    "revert_volume": (("906", "revert volume to snapshot"), _UNKNOWN),
    "recrypt_volume": (("907", "retype volume"), _UNKNOWN),
    "upload_image": (("908", "store image"), _UNKNOWN),
    "import_image": (("909", "import image"), _UNKNOWN),
    "delete_image": (("910", "delete image"), _UNKNOWN),
}
_SCHEDULED: Words = ("001", "schedule allocate volume")
_FROM_IMAGE: Words = ("005", "copy image to volume")
_BY_CODE: dict[str, Words] = {
    "internal": _UNKNOWN,
    "job.defect": _UNKNOWN,
    "compute.extend-not-told": ("009", "Compute service failed to extend volume."),
    "operation.host-away": _NOT_READY,
    "wire.undelivered": _NOT_READY,
    "backend.away": _NOT_READY,
}
_NO_ROOM = frozenset({"backend.no-space", "backend.pool-full", "copying.no-space", "lvm.full"})
_RESOURCES = {"SNAPSHOT": "VOLUME_SNAPSHOT"}


def resource(operation: Operation) -> str:
    """The type of the resource, in the words of the API."""
    kind = operation.resource_type.upper()
    return _RESOURCES.get(kind, kind)


def event(operation: Operation, error: BrickyardError) -> str:
    """`VOLUME_VOLUME_001_003` and the like."""
    action, detail = _words(operation, error)
    return f"VOLUME_{resource(operation)}_{action[0]}_{detail[0]}"


def text(operation: Operation, error: BrickyardError) -> str:
    """The known words, then what happened and what helps, as far as users may know."""
    action, detail = _words(operation, error)
    return " ".join((f"{action[1]}:{detail[1]}", *outward.told(error))).rstrip()


def _words(operation: Operation, error: BrickyardError) -> tuple[Words, Words]:
    action, detail = _ACTIONS.get(operation.kind, (("900", operation.kind.replace("_", " ")), _UNKNOWN))
    code, image = error.code, operation.kind == "create_volume" and bool(operation.args.get("image"))
    if code.startswith("scheduler."):
        return _SCHEDULED if operation.kind == "create_volume" else action, _NO_POOL
    if image:
        action = _FROM_IMAGE
    if code.startswith("quota."):
        return action, _QUOTA
    if image and code in _NO_ROOM:
        return action, _NO_SPACE
    return action, _BY_CODE.get(code, detail)
