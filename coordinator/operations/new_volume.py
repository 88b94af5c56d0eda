"""Checking and accepting a new volume: everything that can be refused is refused before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import Invalid, Permanent
from agent.base.ids import new_id
from coordinator.images.info import ForeignKey, ImageInfo
from coordinator.keys.store import KeyStore
from coordinator.operations import encryption, sizes
from coordinator.operations.accept import Requester, accept
from coordinator.operations.retype_volume import is_multiattach
from coordinator.quota import limits
from coordinator.scheduler.specs import zones
from coordinator.state import snapshots, types, volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import enter


class TypeNotEncrypted(Permanent):
    code = "volume.type-not-encrypted"
    status = 400
    sentence = "Invalid image: image {image} is encrypted, but volume type {type} has no encryption."
    hint = "Choose an encrypted type (openstack volume type create --encryption-provider luks ...)."


class SourceTooLarge(Permanent):
    code = "volume.source-too-large"
    status = 400
    sentence = (
        "Invalid input received: Volume size {size}GB cannot be smaller than {noun} {id}, which needs {needed}GB."
    )
    hint = "Ask for {needed} GB or more."


@dataclass(frozen=True, slots=True)
class NewVolume:
    """A request for a volume, already checked for form. At most one source is set."""

    size: int | None
    name: str | None = None
    description: str | None = None
    availability_zone: str | None = None
    volume_type_id: str | None = None
    snapshot_id: str | None = None
    source_volid: str | None = None
    image: ImageInfo | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, Any] = field(default_factory=dict)

    def company(self, project_id: str) -> str | None:
        """With whom its accepting may share a transaction: what is made from nothing, with others of the project."""
        made_from = (self.snapshot_id, self.source_volid, self.image)
        return f"new volumes of {project_id}" if all(source is None for source in made_from) else None


@dataclass(frozen=True, slots=True)
class _Source:
    """What the source dictates: smallest size, pool, encryption, key, type."""

    minimum: int = 1
    default: int | None = None
    row: Row[Any] | None = None
    key_id: str | None = None
    usable: int | None = None
    key: ForeignKey | None = None


def accept_volume(
    conn: Connection, requester: Requester, keys: KeyStore, wanted: NewVolume
) -> tuple[Operation, Row[Any]]:
    """Insert the volume, its key, its metadata and the operation; raises what is wrong with the request."""
    source = _source(conn, requester, wanted)
    size = wanted.size or source.default
    if size is None:
        raise Invalid(reason="Invalid input received: a size must be given when there is no source.")
    if size < source.minimum:
        noun, source_id = _named(wanted)
        raise SourceTooLarge(size=size, noun=noun, id=source_id, needed=source.minimum)
    type_id = wanted.volume_type_id or (source.row.volume_type_id if source.row is not None else None)
    type_row = types.get(conn, type_id, requester.project_id) if type_id else None
    name = type_row.name if type_row is not None else None
    columns = _encryption(conn, wanted, source, type_id, name)
    specs = types.extra_specs(conn, type_id) if type_id is not None else {}
    _check_zones(wanted.availability_zone, zones(specs))
    multiattach = is_multiattach(specs)
    if multiattach and columns:
        raise Invalid(reason="Invalid input received: a volume can not be both encrypted and multiattach.")
    limits.check(conn, requester.project_id, name, volumes=1, gigabytes=size, volume_size=size)
    volume_id = new_id()
    key_id, source_key_id = _key(conn, requester, keys, columns, source)
    row = enter(
        conn,
        "volume",
        "create",
        id=volume_id,
        project_id=requester.project_id,
        user_id=requester.user_id,
        name=wanted.name,
        description=wanted.description,
        size=size,
        availability_zone=wanted.availability_zone or "nova",
        volume_type_id=type_id,
        snapshot_id=wanted.snapshot_id,
        source_volid=wanted.source_volid,
        image_id=wanted.image.id if wanted.image else None,
        multiattach=multiattach,
        bootable=False,
        encryption_key_id=key_id,
        **columns,
    )
    volumes.put_metadata(conn, volume_id, dict(wanted.metadata))
    args = _args(wanted, source)
    if source_key_id is not None:
        args["source_key_id"] = source_key_id
    operation = accept(
        conn, requester, kind="create_volume", version=2, resource_type="volume", resource_id=volume_id, args=args
    )
    return operation, row


def _check_zones(wanted: str | None, allowed: tuple[str, ...] | None) -> None:
    if allowed is None or (allowed and wanted in {None, *allowed}):
        return
    raise Invalid(
        reason="Invalid input received: Volume type is only supported in these availability zones: "
        f"{', '.join(allowed) or 'none (its list is empty)'}."
    )


def _named(wanted: NewVolume) -> tuple[str, str]:
    if wanted.image is not None:
        return "image", wanted.image.id
    return ("snapshot", wanted.snapshot_id) if wanted.snapshot_id else ("volume", wanted.source_volid or "")


def _source(conn: Connection, requester: Requester, wanted: NewVolume) -> _Source:
    if wanted.snapshot_id is not None:
        snapshot = snapshots.get(conn, wanted.snapshot_id, requester.project_id)
        if snapshot.status != "available":
            raise Invalid(reason=f"Invalid snapshot: Originating snapshot status must be available, "
                                 f"but snapshot {snapshot.id} has status {snapshot.status}.")  # fmt: skip
        row = volumes.get(conn, snapshot.volume_id)
        size = snapshot.volume_size
        return _Source(size, size, row, snapshot.encryption_key_id, snapshot.usable_bytes)
    if wanted.source_volid is not None:
        row = volumes.get(conn, wanted.source_volid, requester.project_id)
        if row.status not in {"available", "in-use"}:
            raise Invalid(reason=f"Invalid source volume: volume {row.id} has status {row.status}, "
                                 "but must be available or in-use.")  # fmt: skip
        return _Source(row.size, row.size, row, row.encryption_key_id, row.usable_bytes)
    if wanted.image is not None:
        return _of_image(wanted.image)
    return _Source()


def _of_image(image: ImageInfo) -> _Source:
    if image.status != "active":
        raise Invalid(reason=f"Invalid image identifier: image {image.id} has status {image.status}, not active.")
    return _Source(smallest(image), key_id=image.key_id, key=image.key)


def smallest(image: ImageInfo) -> int:
    """GiB that a volume needs for the image's content."""
    inside = image.decrypt_size if image.encrypted else (image.virtual_size or image.size)
    return max(sizes.gib_for(inside or image.size), image.min_disk)


def _encryption(
    conn: Connection, wanted: NewVolume, source: _Source, type_id: str | None, type_name: str | None
) -> dict[str, Any]:
    if source.row is not None:
        copied = ("encryption_format", "encryption_cipher", "encryption_key_size")
        values = {name: getattr(source.row, name) for name in copied}
        encrypted_type = types.encryption(conn, type_id) is not None
        if encrypted_type != (values["encryption_format"] is not None):
            raise Invalid(reason="Invalid input received: Invalid volume type: the type of a volume made from another "
                                 "volume or a snapshot must be encrypted just as its source is.")  # fmt: skip
        return values
    found = encryption.of_type(conn, type_id, type_name)
    if found is None and wanted.image is not None and wanted.image.encrypted:
        raise TypeNotEncrypted(image=wanted.image.id, type=type_name or "(none given)")
    return found or {}


def _key(
    conn: Connection, requester: Requester, keys: KeyStore, columns: dict[str, Any], source: _Source
) -> tuple[str | None, str | None]:
    """The volume's key, and a copy of the key in the header that it starts with, kept until the header has its own.

    An image's key is only copied: the volume's header is made for the secret that opens the image.
    """
    if not columns.get("encryption_format"):
        return None, None
    project_id, user_id = requester.project_id, requester.user_id
    copied = None
    if source.key is not None:
        found = source.key
        return keys.create(conn, project_id=project_id, user_id=user_id, type=found.type, value=found.value), None
    if source.key_id is not None:
        copied = keys.clone(conn, source.key_id, project_id=project_id, user_id=user_id)
        if source.row is None:
            return copied, None
    return keys.generate(conn, project_id=project_id, user_id=user_id), copied


def _args(wanted: NewVolume, source: _Source) -> dict[str, Any]:
    image = wanted.image
    args: dict[str, Any] = {"az": wanted.availability_zone}
    if wanted.hints:
        args["hints"] = dict(wanted.hints)
    if source.row is not None:
        args["pool_id"] = source.row.pool_id or _only_pool(source.row)
        args["origin_id"] = source.row.id
    if image is not None:
        args["image"] = image_args(image)
    return args


def _only_pool(row: Row[Any]) -> str | None:
    """Of a row that names a back end and no pool of it; None for what lies nowhere."""
    return f"{row.host_id}@{row.backend}#{row.backend}" if row.host_id and row.backend else None


def _size_is_known(image: ImageInfo) -> bool:
    """How much it unpacks to; without that nothing can be made of it before somebody has asked for a size."""
    if image.container_format == "compressed":
        return False
    return image.disk_format == "raw" or image.virtual_size is not None


def image_args(image: ImageInfo) -> dict[str, Any]:
    """An image as the arguments of an operation name it."""
    told: dict[str, Any] = {
        "id": image.id,
        "host_id": image.host_id,
        "disk_format": image.disk_format,
        "container_format": image.container_format,
        "size": image.size,
        "sha256": image.sha256,
        "encrypted": image.encrypted,
        "decrypt_size": image.decrypt_size,
        "properties": dict(image.properties),
    }
    if image.url is not None:
        told |= {"url": image.url, "needs_login": image.needs_login, "digest": image.digest}
    if image.version is not None and _size_is_known(image):
        told |= {"version": image.version, "least": smallest(image)}
    if image.backing and (image.disk_format, image.container_format) == ("raw", "bare") and not image.encrypted:
        told |= {"backing": list(image.backing), "owner": image.owner}
    if image.proof is not None:
        told["proof"] = asdict(image.proof)
    return told
