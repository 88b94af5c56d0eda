"""Where secrets are kept: the key-encryption key of the built-in store, and a key manager beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from agent.base.config import Section


class BarbicanSettings(Section):
    """`[keys.barbican]`: a Barbican that holds the keys of volumes for those who decrypt them elsewhere."""

    endpoint: str | None = Field(None, description="Address of Barbican's API; default: what the catalog says.")
    region: str | None = Field(None, description="Region of the catalog's endpoint; default: the first one there is.")
    interface: Literal["public", "internal", "admin"] = Field(
        "internal", description="Interface of the catalog's endpoint."
    )
    timeout_s: float = Field(10.0, gt=0, le=300, description="Seconds after which a call of Barbican has failed.")
    interval_s: float = Field(30.0, gt=0, description="Seconds between two looks for keys that are not there yet.")

    @field_validator("endpoint")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("is not an address like https://barbican.example:9311")
        return value.rstrip("/").removesuffix("/v1") if value is not None else None


class KeysSection(Section):
    """`[keys]`"""

    kek_file: Path | None = Field(
        None,
        description="File (mode 0400) with the key-encryption key; default: the systemd credential "
        "`key-encryption-key` where one is given, else `kek` in the state directory, made at the first start.",
    )
    barbican: BarbicanSettings | None = Field(
        None,
        description="A Barbican that gets a copy of each volume's key, called as the user of `[identity.keystone]`.",
    )
