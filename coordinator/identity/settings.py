"""The `[identity]` table of coordinator.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from agent.base.config import Section


class IdentitySettings(Section):
    strategy: Literal["local", "basic", "none"] = Field(
        "local",
        description="Who proves identities: the built-in service (tokens and HTTP basic), HTTP basic alone, nobody.",
    )
    policy_file: Path | None = Field(None, description="YAML file of policy rules that replace built-in ones.")
    token_lifetime: float = Field(86400.0, ge=60, le=30 * 86400, description="Seconds that a token is valid.")
    bcrypt_rounds: int = Field(10, ge=4, le=16, description="Work factor of password hashes; one more doubles it.")
    password_minimum: int = Field(8, ge=1, le=256, description="The fewest characters of a new password.")
    password_cache: float = Field(
        60.0, ge=0, le=600, description="Seconds that a proven password is remembered (as a keyed hash, in memory)."
    )
    recheck: float = Field(
        5.0, ge=0, le=60, description="Seconds after which a token in use is held against the database again."
    )
    failures_allowed: int = Field(8, ge=1, description="Failed logins of one user from one address within the window.")
    failures_window: float = Field(60.0, ge=1, description="Seconds that a failed login counts.")
    region: str = Field("RegionOne", description="The region that the service catalog names.")
