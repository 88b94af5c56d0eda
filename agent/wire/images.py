"""Images on the wire: where their bytes are, and the jobs that move them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from agent.wire.basis import UUID, Bytes, Name, PoolAddress, Wire


class Checksum(Wire):
    algorithm: Literal["md5", "sha256", "sha512"]
    value: str = Field(pattern=r"^[0-9a-f]{32,128}$")


class Signature(Wire):
    """Proof over the stored bytes: `value` in base64, the image's other properties, and the signer's certificate (PEM).

    The certificate was judged by who sends it.
    """

    value: str = Field(max_length=20_000)
    hash_method: str = Field(max_length=255)
    key_type: str = Field(max_length=255)
    certificate: str = Field(max_length=100_000)


class HttpSource(Wire):
    """Where bytes are fetched from: the first address that gives them.

    `token`: the secret `token` is sent along. `site`: named by the site's own configuration, so that addresses of
    its own networks are no trick of a user.
    """

    urls: tuple[str, ...] = Field(min_length=1, max_length=8)
    token: bool = False
    site: bool = False


class ImageService(Wire):
    """An image in a Glance: `url` is its `/v2/images/ID`. Secret `token` when `token` is set.

    `headers` go with the data when they are sent: the store, the base image.
    """

    url: str
    token: bool = False
    headers: dict[str, str] = Field(default_factory=dict)


class ImageSource(Wire):
    """An image to make a volume from; without `transfer` and `http` this host keeps it."""

    image_id: UUID
    disk_format: str
    container_format: str
    size_bytes: Bytes
    checksum: Checksum | None = None
    encrypted: bool = False
    decrypt_size: Bytes | None = None
    transfer: TransferRef | None = None
    http: HttpSource | None = None
    signature: Signature | None = None

    @model_serializer(mode="wrap")
    def _as_told_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not used is not told: the same job posted again must have the same arguments."""
        told: dict[str, Any] = plain(self)
        return {key: value for key, value in told.items() if key not in {"http", "signature"} or value is not None}


class TransferRef(Wire):
    """Where to fetch or push bytes on another host's data port: one random name, one peer, one direction."""

    host: Name
    address: str
    port: int = Field(ge=1, le=65535)
    name: str = Field(pattern=r"^[A-Za-z0-9_-]{16,64}$")


class TransferClose(Wire):
    kind: Literal["transfer.close"] = "transfer.close"
    name: str


class TransferOpen(Wire):
    """A one-use ticket on the data port for `peer` (a SAN role: `host:ID` or `coordinator`)."""

    kind: Literal["transfer.open"] = "transfer.open"
    image_id: UUID
    direction: Literal["read", "write"]
    peer: str
    lifetime_s: int = Field(3600, ge=1, le=86400)
    max_bytes: Bytes | None = None


class ImageCommit(Wire):
    """Turn the bytes that were pushed into an image of the store: synced, hashed, inspected by rule."""

    kind: Literal["image.commit"] = "image.commit"
    image_id: UUID
    disk_format: str
    container_format: str
    encrypted: bool = False


class ImageDelete(Wire):
    kind: Literal["image.delete"] = "image.delete"
    image_id: UUID


class ImageFetch(Wire):
    """Fetch the bytes of an image from a web server into the store. Secret: `url`, which may hold what is private."""

    kind: Literal["image.fetch"] = "image.fetch"
    image_id: UUID
    checksum: Checksum | None = None


class ImageFromVolume(Wire):
    """Send the bytes of a volume, as they lie there or as a qcow2, to the store that `transfer` names."""

    kind: Literal["image.from_volume"] = "image.from_volume"
    backend: PoolAddress
    volume_id: UUID
    image_id: UUID
    transfer: TransferRef
    compress: bool = False
    disk_format: Literal["raw", "qcow2"] = "raw"

    @model_serializer(mode="wrap")
    def _as_told_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _unless_new(plain(self), {"compress": False, "disk_format": "raw"})


class ImageUpload(Wire):
    """Send the bytes of a volume, as they lie there or as a qcow2, into an image of a Glance that waits for them.

    `compress`: packed by gzip, here and in `image.from_volume`.
    """

    kind: Literal["image.upload"] = "image.upload"
    backend: PoolAddress
    volume_id: UUID
    image_id: UUID
    service: ImageService
    compress: bool = False
    disk_format: Literal["raw", "qcow2"] = "raw"

    @model_serializer(mode="wrap")
    def _as_told_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _unless_new(plain(self), {"compress": False, "disk_format": "raw"})


def _unless_new(told: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """What is not wanted is not told: the same job posted again must have the same arguments."""
    return {key: value for key, value in told.items() if key not in plain or value != plain[key]}


class ImageWithdraw(Wire):
    """Remove an image of a Glance that was never finished."""

    kind: Literal["image.withdraw"] = "image.withdraw"
    image_id: UUID
    service: ImageService
