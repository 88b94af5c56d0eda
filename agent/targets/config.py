"""Configuration of the targets, one table each; a table that is there switches its target on."""

from __future__ import annotations

import ipaddress

from pydantic import Field, field_validator

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


class TargetsSection(Section):
    """`[targets]`"""

    lio: LioConfig | None = Field(None, description="iSCSI by the kernel's target: [targets.lio].")
