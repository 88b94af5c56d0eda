"""Actions of volumes: extend, correct the status, flags, what is remembered of the image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from sqlalchemy import Connection

from agent.base.errors import NotFound
from coordinator.api.acting import changed, end_work, requester, target
from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Answer, Body, Boolean, Gib, Key, Metadata, RequiredName, Uuid
from coordinator.api.route import Resource, action, get
from coordinator.api.v3.volume_connections import mine
from coordinator.api.v3.volumes import removed
from coordinator.images import info
from coordinator.images.protections import Asking, Protections
from coordinator.images.protections import Operation as Operation_
from coordinator.keys.depository import Depository
from coordinator.keys.store import KeyStore
from coordinator.operations import completions, retype_volume
from coordinator.operations.completions import Completions
from coordinator.operations.engine import Engine
from coordinator.operations.extend_volume import accept_extend
from coordinator.operations.manage_volume import accept_unmanage
from coordinator.operations.reset_status import Reset, reset_volume
from coordinator.operations.revert_volume import accept_revert
from coordinator.scheduler.placement import Scheduler
from coordinator.state import metadata, types, volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import move

_PATH = "/volumes/{volume_id}/action"
_ADMIN = "volume_extension:volume_admin_actions:"
_IMAGE = "volume_extension:volume_image_metadata:"


class Extend(Body):
    new_size: Gib


class ResetStatus(Body):
    """`force` ends attachments that their keepers still have: a host's agent detaches first."""

    status: Key | None = None
    attach_status: Key | None = None
    migration_status: Key | None = None
    force: Boolean = False


class ExtendCompletion(Body):
    error: Boolean | None = None


class Retype(Body):
    new_type: RequiredName
    migration_policy: Literal["never", "on-demand"] = "never"


class Revert(Body):
    snapshot_id: Uuid


class SetBootable(Body):
    bootable: Boolean


class ReadOnly(Body):
    readonly: Boolean


class ImageMetadata(Body):
    metadata: Metadata


class ImageKey(Body):
    key: Key


class ImageMetadataAnswer(Answer):
    metadata: dict[str, str]


async def extend(call: Call) -> None:
    size = call.valid(Extend).new_size

    def accept(conn: Connection) -> tuple[Operation, None]:
        row = mine(conn, call)
        if row.status == "in-use" and call.version >= 42:
            call.require("volume:extend_attached_volume", {"project_id": row.project_id, "user_id": row.user_id})
        who = requester(call, row.project_id)
        return accept_extend(conn, who, row.id, size, attached=call.version >= 42), None

    await call.services.get(Engine).submit(accept)


async def extend_completion(call: Call) -> None:
    """The compute service's word on an extend that it was asked for."""
    failed = bool(call.valid(ExtendCompletion).error)

    def change(conn: Connection) -> str:
        row = mine(conn, call)
        completions.answer(conn, row, failed=failed)
        return str(row.id)

    volume_id = await call.services.db.write(change)
    waiting = call.services.find(Completions)
    if waiting is not None:
        waiting.told(volume_id)


async def retype(call: Call) -> None:
    """At once where the data stay; where the encryption changes they are written anew, if that is allowed."""
    body, services = call.valid(Retype), call.services
    means = retype_volume.Means(services.get(KeyStore), services.get(Scheduler))
    wanted = retype_volume.Wanted(body.new_type, on_demand=body.migration_policy == "on-demand")

    def change(conn: Connection) -> Operation | None:
        row = mine(conn, call)
        operation, multiattach = retype_volume.retype(conn, requester(call, row.project_id), means, row, wanted)
        if multiattach:
            call.require("volume:multiattach", target(row))
        if operation is None:
            changed(conn, call, "volume", row, "retype_volume.end")
        return operation

    await call.services.get(Engine).submit_perhaps(change)


async def revert(call: Call) -> None:
    snapshot_id = call.valid(Revert).snapshot_id

    def accept(conn: Connection) -> tuple[Operation, None]:
        row = mine(conn, call)
        return accept_revert(conn, requester(call, row.project_id), row.id, snapshot_id), None

    await call.services.get(Engine).submit(accept)


async def unmanage(call: Call) -> None:
    """The data stay, under a name that they can be managed by again."""

    def accept(conn: Connection) -> tuple[Operation, None]:
        row = mine(conn, call)
        return accept_unmanage(conn, requester(call, row.project_id), row.id), None

    await call.services.get(Engine).submit(accept)


async def reset_status(call: Call) -> None:
    body = call.valid(ResetStatus)
    if not any((body.status, body.attach_status, body.migration_status)):
        raise BadRequest(reason="Must specify 'status', 'attach_status' or 'migration_status' for update.")
    if body.attach_status not in {None, "attached", "detached"}:
        raise BadRequest(reason=f"Invalid attach_status {body.attach_status}: it is one of attached, detached.")
    if body.migration_status not in {None, "none", ""}:
        raise BadRequest(reason="Volumes are not migrated by this release: migration_status can only be reset to none.")
    status = body.status.lower() if body.status else None
    if await call.services.db.read(lambda conn: completions.waits(conn, mine(conn, call))):
        # The answer was lost: what was claimed for the extend is let go before the status is corrected.
        await end_work(call, call.params["volume_id"])

    def change(conn: Connection) -> list[Operation]:
        row = mine(conn, call)
        reset = Reset(status, body.attach_status, force=body.force, vouched=call.context.is_service)
        begun = reset_volume(conn, requester(call, row.project_id), row.id, reset)
        if body.migration_status is not None:
            volumes.set_values(conn, row.id, migration_status=None)
        return begun

    for begun in await call.services.db.write(change):
        call.services.get(Engine).start(begun)


async def force_delete(call: Call) -> None:
    await removed(call, force=True, rule=f"{_ADMIN}force_delete")


async def set_bootable(call: Call) -> None:
    wanted = call.valid(SetBootable).bootable
    await call.services.db.write(lambda conn: volumes.set_values(conn, mine(conn, call).id, bootable=wanted))


async def set_readonly(call: Call) -> None:
    """The flag is honoured by attachments made later, so the volume must be free."""
    wanted = call.valid(ReadOnly).readonly

    def change(conn: Connection) -> None:
        row = move(conn, "volume", mine(conn, call).id, "set_readonly")
        metadata.merge(conn, "volume-admin", row.id, {"readonly": str(wanted)})

    await call.services.db.write(change)


async def show_image(call: Call) -> dict[str, Any]:
    found = await call.services.db.read(lambda conn: metadata.read(conn, "volume-image", mine(conn, call).id))
    return {"metadata": found}


def _open_to_users(keys: Iterable[str]) -> None:
    """What the site or its image service says of a volume's image is nobody's to say."""
    if kept := sorted(key for key in keys if info.is_reserved(key)):
        names = ", ".join(kept)[:1024]
        raise BadRequest(reason=f"Image metadata {names} can not be changed: the site or its image service sets it.")


def _unprotected(call: Call, operation: Operation_, key: str) -> None:
    protections = call.services.find(Protections)
    if protections is not None:
        protections.check(Asking(call.context.principal.roles, call.may), operation, key)


async def set_image(call: Call) -> dict[str, Any]:
    values = call.valid(ImageMetadata).metadata
    _open_to_users(values)

    def change(conn: Connection) -> dict[str, str]:
        volume_id = mine(conn, call).id
        known = metadata.read(conn, "volume-image", volume_id)
        for key, value in values.items():
            if known.get(key) != value:
                _unprotected(call, "update" if key in known else "create", key)
        return metadata.merge(conn, "volume-image", volume_id, values)

    return {"metadata": await call.services.db.write(change)}


async def unset_image(call: Call) -> None:
    key = call.valid(ImageKey).key
    _open_to_users((key,))

    def change(conn: Connection) -> bool:
        volume_id = mine(conn, call).id
        _unprotected(call, "delete", key)
        return metadata.remove(conn, "volume-image", volume_id, key)

    if not await call.services.db.write(change):
        raise NotFound(noun="Image metadata key", id=key)


async def encryption_key(call: Call) -> str:
    """One value of the encryption, bare; NotFound for what it does not have."""
    found, key = await encryption(call), call.params["key"]
    if found.get(key) is None:
        raise NotFound(noun="Encryption key", id=key[:255])
    return str(found[key])


async def encryption(call: Call) -> dict[str, Any]:
    """What a host that decrypts the volume itself needs to know; empty for a plain one."""

    def read(conn: Connection) -> dict[str, Any]:
        row = mine(conn, call)
        if row.encryption_key_id is None:
            return {}
        of_type = types.encryption(conn, row.volume_type_id)
        return {
            "encryption_key_id": row.encryption_key_id,
            "control_location": of_type.control_location if of_type is not None else "front-end",
            "cipher": row.encryption_cipher,
            "key_size": row.encryption_key_size,
            "provider": {"luks1": "luks"}.get(row.encryption_format, row.encryption_format),
        }

    found = await call.services.db.read(read)
    depository = call.services.find(Depository)
    if found and depository is not None:
        found["encryption_key_id"] = await depository.for_use(call.params["volume_id"], call.context.user_id)
    return found


def resource() -> Resource:
    """The routes."""
    return Resource(
        "volume_actions",
        "Actions of volumes.",
        (
            action(_PATH, "os-extend", extend, "volume:extend",
                   "Make a volume larger; one in use from 3.42 on.", body=Extend),
            action(_PATH, "os-extend_volume_completion", extend_completion, f"{_ADMIN}extend_volume_completion",
                   "Say how the compute service's part of an extend ended.", body=ExtendCompletion, since=71),
            action(_PATH, "os-retype", retype, "volume:retype", "Change the type; the data stay in their pool.",
                   body=Retype),
            action(_PATH, "revert", revert, "volume:revert_to_snapshot",
                   "Give a volume the content of its latest snapshot.", body=Revert, since=40),
            action(_PATH, "os-unmanage", unmanage, "volume_extension:volume_unmanage",
                   "Let a volume go with its data."),
            action(_PATH, "os-reset_status", reset_status, f"{_ADMIN}reset_status",
                   "Correct a volume's status; refused while attachments or work contradict it.", body=ResetStatus),
            action(_PATH, "os-force_delete", force_delete, f"{_ADMIN}force_delete",
                   "Delete a volume in whatever status, but never one that is attached."),
            action(_PATH, "os-set_bootable", set_bootable, "volume:update", "Say whether a server can boot from it.",
                   body=SetBootable, status=200),
            action(_PATH, "os-update_readonly_flag", set_readonly, "volume:update_readonly_flag",
                   "Allow only read-only attachments.", body=ReadOnly),
            action(_PATH, "os-show_image_metadata", show_image, f"{_IMAGE}show",
                   "What the volume remembers of its image.", answer=ImageMetadataAnswer, status=200),
            action(_PATH, "os-set_image_metadata", set_image, f"{_IMAGE}set",
                   "Add to what the volume remembers of its image.", body=ImageMetadata,
                   answer=ImageMetadataAnswer, status=200),
            action(_PATH, "os-unset_image_metadata", unset_image, f"{_IMAGE}remove",
                   "Forget one key of the image.", body=ImageKey, status=200),
            get("/volumes/{volume_id}/encryption", encryption, "volume_extension:volume_encryption_metadata",
                "How the volume is encrypted."),
            get("/volumes/{volume_id}/encryption/{key}", encryption_key,
                "volume_extension:volume_encryption_metadata", "One value of that."),
        ),
    )  # fmt: skip
