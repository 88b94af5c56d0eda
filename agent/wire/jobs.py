"""What a coordinator can ask an agent to do: one frozen model per job kind, in one discriminated union.

A job travels as `{key, epoch, kind, version, args, secrets}` (ARCHITECTURE §5). `key` is `operation/step/attempt`.
Sizes are bytes. Secrets have a field of their own, live in memory only and never appear in `repr` or a journal.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, TypeAdapter, model_serializer

from agent.wire.basis import (
    LOCAL_GUESTS,
    UUID,
    Bytes,
    CephImage,
    ChannelDevice,
    Connection,
    Endpoint,
    Fabric,
    FabricPort,
    Name,
    PoolAddress,
    Portal,
    Protocol,
    WantedExport,
    Wire,
)
from agent.wire.images import (
    Checksum,
    HttpSource,
    ImageCommit,
    ImageDelete,
    ImageFetch,
    ImageFromVolume,
    ImageService,
    ImageSource,
    ImageUpload,
    ImageWithdraw,
    Signature,
    TransferClose,
    TransferOpen,
    TransferRef,
)
from agent.wire.secret import LuksFormat, WireSecret

__all__ = [
    "LOCAL_GUESTS",
    "UUID",
    "Bytes",
    "CephImage",
    "ChannelDevice",
    "Checksum",
    "Connection",
    "Endpoint",
    "Fabric",
    "FabricPort",
    "HttpSource",
    "ImageCommit",
    "ImageDelete",
    "ImageFetch",
    "ImageFromVolume",
    "ImageService",
    "ImageSource",
    "ImageUpload",
    "ImageWithdraw",
    "LuksFormat",
    "Name",
    "Portal",
    "Protocol",
    "Signature",
    "TransferClose",
    "TransferOpen",
    "TransferRef",
    "WantedExport",
    "Wire",
    "WireSecret",
]


class Generation(Wire):
    """Per (volume, host): an older pair is refused (ARCHITECTURE §4.5)."""

    incarnation: int = Field(ge=1)
    sequence: int = Field(ge=1)


class WantedAttachment(Wire):
    attachment_id: UUID
    mode: Literal["rw", "ro"] = "rw"


class VolumeCreate(Wire):
    kind: Literal["volume.create"] = "volume.create"
    backend: PoolAddress
    volume_id: UUID
    size_bytes: Bytes
    encryption: LuksFormat | None = None


class VolumeClone(Wire):
    """A new volume from a volume or a snapshot on the same back end; exactly one source is given.

    `rekey`: the key of the source, secret `source`, is replaced by the volume's own, secret `volume`. An agent that
    does not know of it leaves the key as it is, and its result does not say `rekeyed`.
    """

    kind: Literal["volume.clone"] = "volume.clone"
    backend: PoolAddress
    volume_id: UUID
    size_bytes: Bytes
    source_volume_id: UUID | None = None
    source_snapshot_id: UUID | None = None
    encrypted: bool = False
    rekey: bool = False

    @model_serializer(mode="wrap")
    def _as_told_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a new key it is told as it always was: the same job posted again must have the same arguments."""
        told: dict[str, Any] = plain(self)
        return {key: value for key, value in told.items() if key != "rekey" or value}


class VolumeFromImage(Wire):
    """Secrets: `image` (when the image is encrypted) and `volume` (when `encryption` is given)."""

    kind: Literal["volume.from_image"] = "volume.from_image"
    backend: PoolAddress
    volume_id: UUID
    size_bytes: Bytes
    image: ImageSource
    encryption: LuksFormat | None = None


class VolumeReimage(Wire):
    """An image as the new content of a volume that is there. Secrets as for `volume.from_image`."""

    kind: Literal["volume.reimage"] = "volume.reimage"
    backend: PoolAddress
    volume_id: UUID
    size_bytes: Bytes
    image: ImageSource
    encryption: LuksFormat | None = None


class VolumeRecrypt(Wire):
    """The content of a volume in another encryption, or in none. `encrypted` says whether it is encrypted now.

    Secrets: `source` where it is, `volume` where it is to be.
    """

    kind: Literal["volume.recrypt"] = "volume.recrypt"
    backend: PoolAddress
    volume_id: UUID
    size_bytes: Bytes
    encrypted: bool = False
    encryption: LuksFormat | None = None


class VolumeRekey(Wire):
    """Let the secret `volume` alone open a volume that `source` opens; from every state in between, and back again."""

    kind: Literal["volume.rekey"] = "volume.rekey"
    backend: PoolAddress
    volume_id: UUID


class VolumeExtend(Wire):
    kind: Literal["volume.extend"] = "volume.extend"
    backend: PoolAddress
    volume_id: UUID
    size_bytes: Bytes
    encrypted: bool = False


class VolumeDelete(Wire):
    kind: Literal["volume.delete"] = "volume.delete"
    backend: PoolAddress
    volume_id: UUID


class SnapshotCreate(Wire):
    kind: Literal["snapshot.create"] = "snapshot.create"
    backend: PoolAddress
    volume_id: UUID
    snapshot_id: UUID


class SnapshotDelete(Wire):
    kind: Literal["snapshot.delete"] = "snapshot.delete"
    backend: PoolAddress
    snapshot_id: UUID


class SnapshotsDelete(Wire):
    """Several snapshots of one back end; one that can not be removed does not keep the others."""

    kind: Literal["snapshots.delete"] = "snapshots.delete"
    backend: PoolAddress
    snapshot_ids: tuple[UUID, ...]


class VolumeRevert(Wire):
    """Give a volume the content of its snapshot, which has the same size."""

    kind: Literal["volume.revert"] = "volume.revert"
    backend: PoolAddress
    volume_id: UUID
    snapshot_id: UUID
    size_bytes: Bytes


class VolumeAdopt(Wire):
    """Take in, without a copy, what others made: `source_name` as the back end lists it, of exactly that size.

    `encrypted`: only when it is LUKS and the secret `volume` opens it; the result then says how it is encrypted.
    """

    kind: Literal["volume.adopt"] = "volume.adopt"
    backend: PoolAddress
    volume_id: UUID
    source_name: str = Field(min_length=1, max_length=255)
    device_bytes: Bytes
    encrypted: bool = False

    @model_serializer(mode="wrap")
    def _as_told_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """One in clear is told as it always was: the same job posted again must have the same arguments."""
        told: dict[str, Any] = plain(self)
        return {key: value for key, value in told.items() if key != "encrypted" or value}


class VolumeRelease(Wire):
    """Let a volume go with its data."""

    kind: Literal["volume.release"] = "volume.release"
    backend: PoolAddress
    volume_id: UUID


class SnapshotAdopt(Wire):
    kind: Literal["snapshot.adopt"] = "snapshot.adopt"
    backend: PoolAddress
    volume_id: UUID
    snapshot_id: UUID
    source_name: str = Field(min_length=1, max_length=255)
    device_bytes: Bytes


class SnapshotRelease(Wire):
    kind: Literal["snapshot.release"] = "snapshot.release"
    backend: PoolAddress
    volume_id: UUID
    snapshot_id: UUID


class AttachmentApply(Wire):
    """Make this host's attachments of one volume equal to `wanted` (empty: detach).

    `connection` None: the volume lies on this host. `force`: whoever has open what is to go is cut off. Secrets:
    `volume` (encrypted), `chap` (if it has auth).
    """

    kind: Literal["attachment.apply"] = "attachment.apply"
    backend: PoolAddress
    volume_id: UUID
    generation: Generation
    wanted: tuple[WantedAttachment, ...] = ()
    encryption: LuksFormat | None = None
    connection: Connection | None = None
    force: bool = False

    @model_serializer(mode="wrap")
    def _as_told_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not used is not told, as ever: the same job posted again must have the same arguments."""
        told: dict[str, Any] = plain(self)
        return {key: value for key, value in told.items() if key not in {"connection", "force"} or value}


class AttachmentResize(Wire):
    """Let this host's device of a volume on another host follow it to `size_bytes` (of the device there).

    Secret: `volume` where it is decrypted here.
    """

    kind: Literal["attachment.resize"] = "attachment.resize"
    volume_id: UUID
    size_bytes: Bytes
    encrypted: bool = False


class ExportApply(Wire):
    """Make what this host offers of one of its volumes to other hosts equal to `wanted` (empty: to nobody).

    Secrets: `chap.ATTACHMENT` for each wanted export with `auth` chap.
    """

    kind: Literal["export.apply"] = "export.apply"
    backend: PoolAddress
    volume_id: UUID
    generation: Generation
    wanted: tuple[WantedExport, ...] = ()
    encrypted: bool = False


JobArgs = Annotated[
    VolumeCreate | VolumeClone | VolumeFromImage | VolumeExtend | VolumeDelete | SnapshotCreate | SnapshotDelete
    | SnapshotsDelete | VolumeRecrypt | VolumeRekey
    | ImageUpload | ImageWithdraw | ImageFetch
    | ImageFromVolume | VolumeReimage | VolumeRevert | VolumeAdopt | VolumeRelease | SnapshotAdopt | SnapshotRelease
    | TransferOpen | TransferClose | ImageCommit | ImageDelete | AttachmentApply | AttachmentResize | ExportApply,
    Field(discriminator="kind"),
]  # fmt: skip
job_args: TypeAdapter[JobArgs] = TypeAdapter(JobArgs)


class JobRequest(Wire):
    """Body of `POST /v1/jobs`.

    `lease_s`: the job works on a back end that other hosts serve too. It goes on only while its coordinator calls
    again within that many seconds, and is not begun later than that after `sent_at` (Unix time of the sender).
    """

    key: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}/[A-Za-z0-9_.:-]{1,64}/[0-9]{1,6}$")
    epoch: int = Field(ge=1)
    kind: str
    version: int = 1
    args: dict[str, Any]
    secrets: dict[str, WireSecret] = Field(default_factory=dict)
    request_id: str = ""
    lease_s: float | None = Field(None, gt=0, le=3600)
    sent_at: float | None = None

    def job(self) -> JobArgs:
        """The typed arguments; pydantic.ValidationError when they do not fit the kind."""
        return job_args.validate_python({**self.args, "kind": self.kind})

    def body(self) -> dict[str, Any]:
        """The JSON body with secrets in clear; never log it."""
        plain = self.model_dump(mode="json", exclude={"secrets"})
        return {**plain, "secrets": {name: s.revealed() for name, s in self.secrets.items()}}


def request_for(
    key: str, epoch: int, args: JobArgs, secrets: dict[str, WireSecret] | None = None, request_id: str = ""
) -> JobRequest:
    plain = args.model_dump(mode="json", exclude={"kind"})
    return JobRequest(key=key, epoch=epoch, kind=args.kind, args=plain, secrets=secrets or {}, request_id=request_id)


class Progress(Wire):
    """`total` 0 means not known; `rate` is bytes a second; `eta_s` None when it can not be told."""

    phase: str = ""
    done: Bytes = 0
    total: Bytes = 0
    rate: float = 0.0
    eta_s: float | None = None


class ErrorBody(Wire):
    code: str
    status: int = 500
    message: str
    hint: str = ""
    context: dict[str, Any] = Field(default_factory=dict)
    retry_after: float | None = None


JobState = Literal["queued", "running", "needs-secret", "done", "failed", "cancelled", "fenced"]
TERMINAL: frozenset[str] = frozenset({"done", "failed", "cancelled", "fenced"})


class JobStatus(Wire):
    """Answer of `POST /v1/jobs`, `GET /v1/jobs/{key}`. `seq` rises with every change; `after=seq` long-polls."""

    key: str
    epoch: int
    kind: str
    state: JobState
    seq: int
    progress: Progress | None = None
    result: dict[str, Any] | None = None
    error: ErrorBody | None = None

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL
