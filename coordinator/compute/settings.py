"""The `[compute]` table of coordinator.toml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from agent.base.config import Section


class ComputeSettings(Section):
    strategy: Literal["none", "nova"] = Field(
        "none",
        description="Which compute service uses volumes: none (hosts alone), or a Nova, found in the catalog of the "
        "Keystone that `[identity.keystone]` names and called as its user, who needs the role `admin` there.",
    )
    endpoint: str | None = Field(None, description="Address of Nova's API; default: what the catalog says.")
    region: str | None = Field(None, description="Region of the catalog's endpoint; default: the first one there is.")
    interface: Literal["public", "internal", "admin"] = Field(
        "internal", description="Interface of the catalog's endpoint."
    )
    timeout_s: float = Field(10.0, gt=0, le=300, description="Seconds after which a call of Nova has failed.")
    attempts: int = Field(3, ge=1, le=10, description="How often Nova is told of something before it is given up.")
    completion_version: str | None = Field(
        None,
        description="Microversion of a Nova that answers `volume-extended` with os-extend_volume_completion; with it, "
        "a volume whose file a server has locked is enlarged by that server. Default: such an extend is refused.",
    )
    completion_deadline_s: float = Field(
        3600.0, gt=0, description="Seconds that an extend waits for that answer before it has failed."
    )

    @field_validator("endpoint")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("is not an address like https://nova.example:8774/v2.1")
        return value.rstrip("/") if value is not None else None

    @field_validator("completion_version")
    @classmethod
    def _version(cls, value: str | None) -> str | None:
        if value is not None and not (value.startswith("2.") and value[2:].isdigit()):
            raise ValueError("is not a microversion like 2.97")
        return value
