"""Where secrets are kept: the key-encryption key of the built-in store, and a key manager beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator, model_validator

from agent.base.config import Section, read_secret, trust

if TYPE_CHECKING:
    import ssl

_PLACE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")


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


class VaultSettings(Section):
    """`[keys.vault]`: a Vault (or OpenBao) that holds the keys of volumes for those who decrypt them elsewhere."""

    address: str = Field(description="Address of the Vault, as in VAULT_ADDR.")
    role_id: str = Field(min_length=1, description="Role id of the AppRole that this service logs in as.")
    secret_id_file: Path | None = Field(
        None,
        description="File with the AppRole's secret id, mode 0400, read at each log-in; default: the systemd "
        "credential `vault-secret-id`.",
    )
    approle_mount: str = Field("approle", description="Where the AppRole method is mounted.")
    mount: str = Field("secret", description="Where the KV engine (version 2) is mounted.")
    path: str = Field("", description="Folder of the keys in it; default: its root.")
    namespace: str | None = Field(None, description="Namespace, where the Vault has such.")
    ca_file: Path | None = Field(
        None, description="Certificates that vouch for an https address; default: the system's."
    )
    timeout_s: float = Field(10.0, gt=0, le=300, description="Seconds after which a call of the Vault has failed.")
    interval_s: float = Field(30.0, gt=0, description="Seconds between two looks for keys that are not there yet.")

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/@?#]+/?", value):
            raise ValueError("is not an address like https://vault.example:8200")
        return value.rstrip("/")

    @field_validator("mount", "path", "approle_mount")
    @classmethod
    def _place(cls, value: str) -> str:
        value = value.strip("/")
        if value and not _PLACE.fullmatch(value):
            raise ValueError("is not a path of letters, digits, dots, dashes and underscores")
        return value

    @model_validator(mode="after")
    def _mounted(self) -> VaultSettings:
        if not self.mount or not self.approle_mount:
            raise ValueError("mount and approle_mount can not be empty")
        return self

    def secret_id(self) -> str:
        """The secret id; raises SecretUnreadable."""
        return read_secret("vault-secret-id", self.secret_id_file).decode().rstrip("\n")

    def tls(self) -> ssl.SSLContext | None:
        """The context for `ca_file`; None without it. Raises ConfigError for a file that can not be used."""
        return trust(self.ca_file, "[keys.vault]")


class KeysSection(Section):
    """`[keys]`"""

    kek_file: Path | None = Field(
        None,
        description="File (mode 0400) with the key-encryption key; default: the systemd credential "
        "`key-encryption-key` where one is given, else `kek` in the state directory, made at the first start.",
    )
    manager: Literal["local", "barbican", "vault"] | None = Field(
        None,
        description="Which of the tables below gets the keys of volumes; needed while there are both, as keys are "
        "moved from one to the other. `local`: neither; they stay in the sealed store alone. Default: the one there "
        "is.",
    )
    barbican: BarbicanSettings | None = Field(
        None,
        description="A Barbican that gets a copy of each volume's key, called as the user of `[identity.keystone]`.",
    )
    vault: VaultSettings | None = Field(None, description="A Vault that gets a copy of each volume's key.")

    @model_validator(mode="after")
    def _known_manager(self) -> KeysSection:
        if self.manager is None and self.barbican is not None and self.vault is not None:
            raise ValueError(
                "with both tables [keys.barbican] and [keys.vault], one of them must be named: manager = ..."
            )
        if self.manager not in {None, "local"} and self.target not in self.tables:
            raise ValueError(f"manager {self.manager} needs the table [keys.{self.manager}]")
        return self

    @property
    def tables(self) -> tuple[str, ...]:
        """The key managers that are configured."""
        return tuple(name for name in ("barbican", "vault") if getattr(self, name) is not None)

    @property
    def target(self) -> str:
        """Where the keys of volumes go: a key manager, or `local`."""
        return self.manager or next(iter(self.tables), "local")
