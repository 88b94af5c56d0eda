"""Results of jobs and the answers of the agent's read calls. Sizes are bytes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from agent.wire.basis import PoolAddress
from agent.wire.jobs import UUID, Bytes, Checksum, Connection, Endpoint, Generation, LuksFormat, Name, Protocol, Wire


class VolumeResult(Wire):
    """After create, clone, from_image, extend: the device's size (header included) and what it gives inside.

    `rekeyed`: only the volume's own secret opens it, as was asked for. `verified`: so was the image's signature.
    """

    volume_id: UUID
    device_bytes: Bytes
    usable_bytes: Bytes
    rekeyed: bool = False
    verified: bool = False


class AdoptedResult(VolumeResult):
    """After an adoption; `encryption` is what the header says of a volume that was adopted with its key."""

    encryption: LuksFormat | None = None


class SnapshotResult(Wire):
    snapshot_id: UUID
    device_bytes: Bytes


class SnapshotsResult(Wire):
    """What was removed, and per snapshot that was not the reason."""

    deleted: tuple[UUID, ...] = ()
    failed: dict[str, str] = Field(default_factory=dict)


class SentResult(Wire):
    """What was sent of a volume to an image store."""

    image_id: UUID
    size_bytes: Bytes
    disk_format: str = "raw"


class ReleasedResult(Wire):
    """What the released thing is called now."""

    name: str


class ForeignItem(Wire):
    """One row of `GET /v1/foreign`: what a back end could adopt; `reason` says why it is not safe to."""

    backend: PoolAddress
    kind: Literal["volume", "snapshot"]
    name: str
    size_bytes: Bytes
    reason: str = ""
    source: str = ""


class TransferResult(Wire):
    """The opened ticket; the address is filled in by the coordinator from the host's facts."""

    name: str
    port: int


class ImageResult(Wire):
    image_id: UUID
    size_bytes: Bytes
    checksums: tuple[Checksum, ...] = ()
    detected_format: str = ""
    virtual_size: Bytes = 0


class AttachedDevice(Wire):
    """What a holder of an attachment uses. `raw` says that the device is not decrypted (no dm-crypt here)."""

    attachment_id: UUID
    device: str
    raw_device: str
    raw: bool = False
    diskseq: int | None = None


class AttachmentsResult(Wire):
    volume_id: UUID
    generation: Generation
    attached: tuple[AttachedDevice, ...] = ()


class Exported(Wire):
    attachment_id: UUID
    connection: Connection


class ExportsResult(Wire):
    """One connection for each wanted export, in their order."""

    volume_id: UUID
    generation: Generation
    exported: tuple[Exported, ...] = ()


class ResizedResult(Wire):
    """Bytes that a holder of each attachment sees now."""

    volume_id: UUID
    sizes: dict[str, Bytes] = Field(default_factory=dict)


class RbdAccess(Wire):
    """How a client of the cluster itself opens the images of a pool; `monitors` are pairs of address and port.

    `fsid` is the cluster's own id; None: the agent is of a release whose volumes can not be mapped by hosts.
    """

    cluster_name: str
    pool: str
    image_prefix: str
    user: str
    monitors: tuple[tuple[str, int], ...]
    secret_uuid: UUID | None = None
    fsid: UUID | None = None


class Pool(Wire):
    """`name` is the pool part of `host@backend#pool`.

    `total_bytes` and `free_bytes` are physical and contain what is reserved; `allocated_bytes` is what the back end's
    own things were made with, `foreign_bytes` what others carved out of the same space. `thin` and `thick` may both be
    true.
    `capabilities` are the operator's own words, which volume types can ask for. Hosts whose pools have the same
    `cluster_name`, back end and name serve the same volumes.
    """

    backend: Name
    name: Name
    driver: str
    total_bytes: Bytes
    free_bytes: Bytes
    allocated_bytes: Bytes
    byte_granular: bool = True
    thin: bool = True
    reflink: bool = False
    multiattach: bool = False
    protocols: tuple[str, ...] = ("local",)
    thick: bool = False
    reserved_percent: int = Field(0, ge=0, le=100)
    max_over_subscription: float | Literal["auto"] = 20.0
    capabilities: dict[str, bool | int | float | str] = Field(default_factory=dict)
    filter_function: str = ""
    goodness_function: str = ""
    data_percent: float | None = None
    metadata_percent: float | None = None
    cluster_name: Name | None = None
    image_cache: bool = False
    image_cache_max_gib: int = 0
    image_cache_max_count: int = 0
    foreign_bytes: Bytes = 0
    rbd: RbdAccess | None = None


def pool_address(backend: str, pool: str | None) -> str:
    """How jobs name where a volume lies. A pool called like its back end is the only one, or the first it had."""
    return backend if pool in {None, "", backend} else f"{backend}#{pool}"


_AUTO_START, _GIB = 20.0, 1 << 30


def ratio_in_force(wanted: float | str, *, total: int, free: int, promised: int) -> float:
    """The over-subscription ratio: a number, or by `auto` how far promises exceed what is really used (bytes)."""
    if wanted != "auto":
        return float(wanted)
    return _AUTO_START if promised == 0 else 1.0 + promised / (max(total - free, 0) + _GIB)


class HostFacts(Wire):
    """`GET /v1/host`."""

    host: Name
    boot_id: str
    arch: str
    kernel: str
    version: str
    started_at: str
    clock: float
    initiator_iqn: str | None = None
    nqn: str | None = None
    wwpns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    links: dict[str, str] = Field(default_factory=dict)
    data_port: int | None = None
    keeps_images: bool = False
    capabilities: tuple[str, ...] = ()
    job_kinds: tuple[str, ...] = ()
    backends: tuple[str, ...] | None = None


class Report(Wire):
    """`GET /v1/report?have=`: what a poll needs, but for what the caller has.

    `have` is what to send with the next poll; `host` and `pools` are None where the caller's are the newest. `held` is
    a digest of inventory, attachments, exports and what is wrong with devices in use, empty where that was not to be
    had in time. `finished` are the keys of ended jobs that nobody acknowledged (at most a thousand). `unread` is
    not told but found by who reads it: pools that can not be used, with what is wrong with each.
    """

    clock: float
    have: str = ""
    host: HostFacts | None = None
    pools: tuple[Pool, ...] | None = None
    held: str = ""
    finished: tuple[str, ...] = ()
    unread: dict[str, str] = Field(default_factory=dict, exclude=True)


class InventoryVolume(Wire):
    """One thing that a back end holds, for the reconciler (`GET /v1/inventory`)."""

    backend: PoolAddress
    kind: Literal["volume", "snapshot", "image", "leftover"]
    id: str
    device_bytes: Bytes
    allocated_bytes: Bytes


class HostAttachment(Wire):
    """One row of `GET /v1/attachments`: what the host's own table wants, and what the kernel says."""

    attachment_id: UUID
    volume_id: UUID
    backend: PoolAddress
    generation: Generation
    device: str
    raw_device: str
    raw: bool = False
    mode: str = "rw"
    boot_id: str = ""
    state: Literal["attached", "missing", "needs-secret", "stale"] = "attached"
    protocol: str = "local"
    paths: tuple[str, ...] = ()


class HostExport(Wire):
    """One row of `GET /v1/exports`: what this host was told to offer, and what its kernel says.

    `connected`: the consumer has a session now; None: the kernel does not tell (NVMe), and it is left out.
    """

    attachment_id: UUID
    volume_id: UUID
    backend: PoolAddress
    generation: Generation
    protocol: Protocol
    initiator: Endpoint
    mode: str = "rw"
    target: str = ""
    connected: bool | None = None
    boot_id: str = ""
    state: Literal["exported", "missing", "stale"] = "exported"
    reason: str = ""

    @model_serializer(mode="wrap")
    def _as_told_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        told: dict[str, Any] = plain(self)
        return {key: value for key, value in told.items() if key != "connected" or value is not None}


class HostIssue(Wire):
    """One row of `GET /v1/issues`."""

    code: str
    resource: str
    message: str
    remedy: str
    since: str
