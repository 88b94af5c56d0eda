"""The `[identity]` table of coordinator.toml."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from agent.base.config import Section, read_secret, trust

if TYPE_CHECKING:
    import ssl


class KeystoneSettings(Section):
    """`[identity.keystone]`: the Keystone that proves tokens, and the user this service asks it as."""

    auth_url: str = Field(description="Address of the Keystone, as in OS_AUTH_URL; `/v3` is added when it is missing.")
    username: str = Field("brickyard", description="The user; it needs the role `service` or `admin`.")
    password: SecretStr | None = Field(None, description="The user's password; rather use `password_file`.")
    password_file: Path | None = Field(
        None, description="File with the password, mode 0400; default: the systemd credential `keystone-password`."
    )
    user_domain_name: str = Field("Default", description="The domain of the user.")
    project_name: str = Field("service", description="The project that the user logs in to.")
    project_domain_name: str = Field("Default", description="The domain of the project.")
    ca_file: Path | None = Field(
        None, description="Certificates that vouch for an https address; default: the system's."
    )
    cache_s: float = Field(
        60.0, ge=0, le=600, description="Seconds that a proven token is remembered; so long a revoked one is taken."
    )
    timeout_s: float = Field(10.0, gt=0, description="Seconds after which a Keystone that does not answer is away.")

    @field_validator("auth_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/]+(/[^\s?#]*)?", value) or "@" in value:
            raise ValueError("is not an address like https://keystone.example:5000/v3")
        return value

    def secret(self) -> str:
        """The password; raises SecretUnreadable."""
        if self.password is not None:
            return self.password.get_secret_value()
        return read_secret("keystone-password", self.password_file).decode().rstrip("\n")

    def tls(self) -> ssl.SSLContext | None:
        """The context for `ca_file`; None without it. Raises ConfigError for a file that can not be used."""
        return trust(self.ca_file, "[identity.keystone]")


class IdentitySettings(Section):
    strategy: Literal["local", "basic", "keystone", "none"] = Field(
        "local",
        description="Who proves identities: the built-in service (tokens and HTTP basic), HTTP basic alone, "
        "a Keystone, nobody.",
    )
    keystone: KeystoneSettings | None = Field(None, description="The Keystone of strategy `keystone`.")
    policy_file: Path | None = Field(None, description="YAML file of policy rules that replace built-in ones.")
    enforce_scope: bool = Field(
        False,
        description="Whether tokens of the system alone act on the site (services, types, quotas), and tokens of "
        "projects alone on what belongs to projects. Without it role admin in any project does both.",
    )
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

    @model_validator(mode="after")
    def _has_keystone(self) -> IdentitySettings:
        if self.strategy == "keystone" and self.keystone is None:
            raise ValueError("strategy keystone needs the table [identity.keystone] with auth_url")
        return self
