"""`[images]`: where images and half-fetched bytes lie, and what a conversion may use."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from agent.base.config import Section
from agent.images.inspect import MAX_VIRTUAL, Limits
from agent.luks.model import KdfLimits

if TYPE_CHECKING:
    from agent.images.web import Rules

GiB = 1 << 30


class ImagesConfig(Section):
    """`[images]`"""

    store: Path | None = Field(None, description="Folder in which this host keeps images; unset: it keeps none.")
    spool: Path | None = Field(None, description="Folder for images being fetched; unset: below the state directory.")
    spool_max_bytes: int = Field(200 * GiB, ge=1 << 20, description="Most bytes of the spool, over all running jobs.")
    memory_spool_bytes: int = Field(
        2 * GiB,
        ge=0,
        description="Most bytes of clear data held in memory for encrypted volumes, over all running jobs.",
    )
    max_virtual_bytes: int = Field(
        MAX_VIRTUAL, ge=1 << 20, description="Largest size that an image may unpack to when it is stored."
    )
    passphrase_iterations: int = Field(
        2_000_000, ge=1000, le=64_000_000, description="PBKDF2 iterations of a passphrase's key slot in a new volume."
    )
    kdf_max_iterations: int = Field(
        64_000_000, ge=1000, description="Most PBKDF2 iterations that one key slot of a foreign image may ask for."
    )
    kdf_max_memory_bytes: int = Field(
        1 * GiB, ge=0, description="Most memory that opening a foreign LUKS2 header may ask for."
    )
    networks: tuple[str, ...] = Field(
        (),
        description="Networks (`10.0.0.0/8`) that images given by their address may be fetched from, beside public "
        "ones. An image service that the coordinator names needs no entry.",
    )
    fetch_max_bytes: int = Field(1 << 40, ge=1 << 20, description="Most bytes that are fetched of one image.")
    fetch_timeout_s: float = Field(
        6 * 3600.0, gt=0, description="Seconds after which the fetch of an image from a server is given up."
    )
    ca_file: Path | None = Field(
        None, description="Certificates that vouch for servers of images; default: the system's."
    )

    @field_validator("networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ipaddress.ip_network(text)
        return value

    def rules(self) -> Rules:
        """What these settings mean for a fetch from a server."""
        from agent.images.web import Rules

        networks = tuple(ipaddress.ip_network(text) for text in self.networks)
        return Rules(networks, self.fetch_max_bytes, self.fetch_timeout_s, ca_file=self.ca_file)

    def limits(self) -> Limits:
        """The limits of inspection that these settings mean."""
        kdf = KdfLimits(
            slot_iterations=self.kdf_max_iterations,
            total_iterations=3 * self.kdf_max_iterations,
            memory_bytes=self.kdf_max_memory_bytes,
        )
        return Limits(self.max_virtual_bytes, kdf)
