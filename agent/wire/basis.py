"""What all models of the wire are made of, and how a volume of one host is reached from another."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

UUID = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
PoolAddress = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}(#[A-Za-z0-9][A-Za-z0-9_.-]{0,62})?$")]
"""A back end, with the pool where it has several: `fast`, `fast#p1`."""
Bytes = Annotated[int, Field(ge=0, le=1 << 62)]
Protocol = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,30}$")]
"""Name of a transport: `iscsi`, `iser`, `nvme-tcp`, `nvme-rdma`, `rbd`, …, `vhost` to guests of the volume's own
host; a host refuses one that it has no connector for."""
Endpoint = Annotated[str, Field(pattern=r"^[a-z0-9][A-Za-z0-9.:_-]{2,222}$")]
"""Name of a target or an initiator: an IQN or an NQN; by vhost a target is `naa.…`."""
LOCAL_GUESTS = "local-guests"
"""The one consumer by vhost: whichever guest of the volume's host opens the endpoint."""


class Wire(BaseModel):
    """Base of all wire models: frozen; unknown fields are ignored so that a newer peer is understood."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Portal(Wire):
    """An address (IPv4, or IPv6 without brackets) and a TCP port where a target answers."""

    address: str = Field(pattern=r"^[0-9A-Fa-f.:]{2,45}$")
    port: int = Field(ge=1, le=65535)


class ChannelDevice(Wire):
    """A DASD of IBM Z. `layout` says that, and how, an unformatted one is to be formatted; never without it."""

    bus_id: str = Field(pattern=r"^[0-9a-f]{1,2}\.[0-3]\.[0-9a-f]{4}$")
    read_only: bool = False
    layout: Literal["cdl", "ldl"] | None = None


class FabricPort(Wire):
    """A port of an array on a Fibre Channel fabric (16 hex digits), and the number of the volume's LUN behind it."""

    wwpn: str = Field(pattern=r"^[0-9a-f]{16}$")
    lun: int = Field(ge=0, le=0xFFFFFFFF)


class Fabric(Wire):
    """A volume on a Fibre Channel fabric. `addressing` says how the array wants LUN numbers above 255 to be written."""

    ports: tuple[FabricPort, ...] = Field(min_length=1, max_length=64)
    addressing: Literal["SAM", "SAM2", "SAM3-flat"] = "SAM"


class CephImage(Wire):
    """A volume as an image in a Ceph cluster; its monitors are the portals, its name in the pool is the target.

    `messenger` is the version of Ceph's protocol that the monitors speak there.
    """

    pool: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")
    fsid: UUID
    messenger: Literal["v1", "v2"] = "v1"
    read_only: bool = False


_MADE_BY = {"iser": "iser", "nvme-rdma": "rdma"}


class Connection(Wire):
    """How a host reaches a volume of another host, without any secret.

    `identity` is what the target promises of the device, as the kernel tells it (`naa.…`, `uuid.…`, `eui.…`, by rbd
    `image.…`), and `serial` its unit serial number (empty: none is promised): a device that says anything else is
    handed to nobody.
    With `auth` chap the secret belongs to `username`. With `replicas` the volume is a mirror of them, and `target` its
    name; `degraded` says that those which do not answer are known to hold nothing newer.
    """

    protocol: Protocol
    target: Endpoint
    portals: tuple[Portal, ...] = Field((), max_length=64)
    lun: int | None = Field(None, ge=0, le=16383)
    nsid: int | None = Field(None, ge=1)
    identity: str = Field(pattern=r"^[A-Za-z0-9_.:-]{4,128}$")
    serial: str = Field("", pattern=r"^[A-Za-z0-9_.:-]{0,64}$")
    size_bytes: Bytes
    auth: Literal["none", "chap"] = "none"
    username: str = Field("", max_length=64)
    transport: Literal["tcp", "iser", "rdma"] = "tcp"
    channel: ChannelDevice | None = None
    fabric: Fabric | None = None
    ceph: CephImage | None = None
    replicas: tuple[Connection, ...] = Field((), max_length=8)
    degraded: bool = False

    @model_validator(mode="after")
    def _reachable(self) -> Connection:
        if not (self.portals or self.channel or self.fabric or self.replicas or self.protocol == "vhost"):
            raise ValueError("no portal, port of a fabric, channel-attached device or replica is named")
        if (self.protocol == "rbd") != (self.ceph is not None):
            raise ValueError("an image of a Ceph cluster goes by rbd, and nothing else does")
        if _MADE_BY.get(self.protocol, self.transport) != self.transport:
            raise ValueError(f"{self.protocol} goes by {_MADE_BY[self.protocol]}, not by {self.transport}")
        names = {one.target for one in self.replicas}
        if any(one.replicas for one in self.replicas) or len(names) < len(self.replicas):
            raise ValueError("a replica is a replica itself, or named twice")
        return self

    @model_serializer(mode="wrap")
    def _as_told_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What was known before is told as it always was: the same job posted again must have the same arguments."""
        told: dict[str, Any] = plain(self)
        later = {"fabric": self.fabric, "ceph": self.ceph, "replicas": self.replicas, "degraded": self.replicas}
        return {key: value for key, value in told.items() if later.get(key, True)}


class WantedExport(Wire):
    """One consumer of a volume: the attachment, and the IQN or NQN of the host that may use it.

    By vhost it is a guest of the volume's own host, LOCAL_GUESTS.
    """

    attachment_id: UUID
    protocol: Protocol
    initiator: Endpoint
    mode: Literal["rw", "ro"] = "rw"
    auth: Literal["none", "chap"] = "none"

    @model_validator(mode="after")
    def _by_a_name_of_its_kind(self) -> WantedExport:
        if self.protocol == "vhost" and (self.initiator != LOCAL_GUESTS or self.auth != "none"):
            raise ValueError(f"vhost is for {LOCAL_GUESTS}, who do not log in")
        return self
