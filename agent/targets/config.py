"""Configuration of the targets, one table each; a table that is there switches its target on."""

from __future__ import annotations

import ipaddress

from pydantic import Field, field_validator, model_validator

from agent.base.config import Section


class LioConfig(Section):
    """`[targets.lio]`: volumes of this host are offered to other hosts by iSCSI, with the kernel's own target."""

    portals: tuple[str, ...] = Field(
        (),
        description="Addresses (IPv4 or IPv6, without a port) at which other hosts reach this one; the first is tried "
        "first, several give several paths. Default: agent.address, else all addresses of this host.",
    )
    port: int = Field(3260, ge=1, le=65535, description="TCP port of every portal.")

    @field_validator("portals")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_address(one)) for one in value)


class NvmetConfig(Section):
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

    @field_validator("portals", "standby")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_address(one)) for one in value)

    @model_validator(mode="after")
    def _apart(self) -> NvmetConfig:
        if both := set(self.portals) & set(self.standby):
            raise ValueError(f"{', '.join(sorted(both))} is in portals and in standby")
        if self.standby and not self.portals:
            raise ValueError("standby needs portals to stand by for")
        return self


class TargetsSection(Section):
    """`[targets]`"""

    nvmet: NvmetConfig | None = Field(None, description="NVMe/TCP by the kernel's target: [targets.nvmet].")
    lio: LioConfig | None = Field(None, description="iSCSI by the kernel's target: [targets.lio].")
