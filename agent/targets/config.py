"""Configuration of the targets, one table each; a table that is there switches its target on."""

from __future__ import annotations

import ipaddress

from pydantic import Field, field_validator, model_validator

from agent.base.config import Section

_OF_RDMA = "Default: agent.address, if an RDMA device has it, else all addresses that one has."


class Portals(Section):
    """Where a target answers."""

    portals: tuple[str, ...] = Field((), description="Addresses at which other hosts reach this one.")
    port: int = Field(3260, ge=1, le=65535, description="TCP port of every portal.")

    @field_validator("portals")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_address(one)) for one in value)


class LioConfig(Portals):
    """`[targets.lio]`: volumes of this host are offered to other hosts by iSCSI, with the kernel's own target."""

    portals: tuple[str, ...] = Field(
        (),
        description="Addresses (IPv4 or IPv6, without a port) at which other hosts reach this one; the first is tried "
        "first, several give several paths. Default: agent.address, else all addresses of this host.",
    )


class IserConfig(Portals):
    """`[targets.iser]`: volumes of this host are offered to other hosts by iSCSI over RDMA (iSER), with the kernel's
    own target."""

    portals: tuple[str, ...] = Field(
        (),
        description="Addresses (IPv4 or IPv6, without a port) of this host's RDMA devices at which other hosts reach "
        f"it; the first is tried first, several give several paths. {_OF_RDMA}",
    )
    port: int = Field(3260, ge=1, le=65535, description="Port of every portal; TCP log-ins are taken there, too.")


class NvmetConfig(Portals):
    """`[targets.nvmet]`: volumes of this host are offered to other hosts by NVMe/TCP, with the kernel's own target."""

    portals: tuple[str, ...] = Field(
        (),
        description="Addresses (IPv4 or IPv6, without a port) at which other hosts reach this one; several give "
        "several paths, used together. Default: agent.address, else all addresses of this host.",
    )
    standby: tuple[str, ...] = Field(
        (),
        description="Further addresses, used only while no path by one of `portals` works (ANA: non-optimized).",
    )
    port: int = Field(4420, ge=1, le=65535, description="TCP port of every portal.")

    @field_validator("standby")
    @classmethod
    def _further(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_address(one)) for one in value)

    @model_validator(mode="after")
    def _apart(self) -> NvmetConfig:
        if both := set(self.portals) & set(self.standby):
            raise ValueError(f"{', '.join(sorted(both))} is in portals and in standby")
        if self.standby and not self.portals:
            raise ValueError("standby needs portals to stand by for")
        return self


class NvmetRdmaConfig(NvmetConfig):
    """`[targets.nvmet_rdma]`: volumes of this host are offered to other hosts by NVMe over RDMA, with the kernel's own
    target."""

    portals: tuple[str, ...] = Field(
        (),
        description="Addresses (IPv4 or IPv6, without a port) of this host's RDMA devices at which other hosts reach "
        f"it; several give several paths, used together. {_OF_RDMA}",
    )
    port: int = Field(4420, ge=1, le=65535, description="Port of every portal, in the numbers of the RDMA service.")


class VhostConfig(Section):
    """`[targets.vhost]`: volumes of this host are offered to KVM guests of it by vhost-scsi. It has no keys."""


class TargetsSection(Section):
    """`[targets]`"""

    nvmet: NvmetConfig | None = Field(None, description="NVMe/TCP by the kernel's target: [targets.nvmet].")
    nvmet_rdma: NvmetRdmaConfig | None = Field(
        None, description="NVMe over RDMA by the kernel's target: [targets.nvmet_rdma]."
    )
    lio: LioConfig | None = Field(None, description="iSCSI by the kernel's target: [targets.lio].")
    iser: IserConfig | None = Field(None, description="iSCSI over RDMA by the kernel's target: [targets.iser].")
    vhost: VhostConfig | None = Field(
        None, description="vhost-scsi for KVM guests of this host; the table [targets.vhost] is all that it takes."
    )
