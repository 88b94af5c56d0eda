"""`[images]`: where images and half-fetched bytes lie, and what a conversion may use."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from agent.base.config import Section
from agent.images.inspect import MAX_VIRTUAL, Limits
from agent.luks.model import KdfLimits

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
    conversion_timeout_s: float = Field(6 * 3600.0, gt=0, description="Seconds after which a conversion is stopped.")

    def limits(self) -> Limits:
        """The limits of inspection that these settings mean."""
        kdf = KdfLimits(
            slot_iterations=self.kdf_max_iterations,
            total_iterations=3 * self.kdf_max_iterations,
            memory_bytes=self.kdf_max_memory_bytes,
        )
        return Limits(self.max_virtual_bytes, kdf)
