"""The `[api]` table of coordinator.toml."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from agent.base.config import ConfigError, Section

if TYPE_CHECKING:
    import ssl


class TlsSettings(Section):
    """`[api.tls]`"""

    certificate: Path = Field(description="File with the certificate and those that vouch for it, PEM.")
    key: Path = Field(description="File with the private key, PEM; readable by the coordinator alone.")

    def context(self) -> ssl.SSLContext:
        """What the listener needs; raises ConfigError naming the file that can not be used."""
        import ssl

        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            made.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                where="[api.tls]",
                key="certificate, key",
                problem=f"{self.certificate} and {self.key} can not be used: {error.strerror or error}",
                remedy="Give a PEM certificate and its PEM key, both readable by the coordinator",
            ) from None
        return made


class ApiSettings(Section):
    tls: TlsSettings | None = Field(None, description="Serve the API over TLS with this certificate; default: plain.")
    response_validation: Literal["error", "warn", "ignore"] = Field(
        "warn",
        description="What happens when an answer does not match its schema: a 500, a line in the log (a few "
        "entries of long lists are looked at), nothing.",
    )
    public_endpoint: str | None = Field(
        None, description="The address that links name, for example behind a proxy; default: what the caller used."
    )
    trusted_proxies: list[str] = Field(
        default_factory=list,
        description="Addresses or networks of proxies whose `X-Forwarded-For`, `-Proto`, `-Host`, `-Port` and "
        "`-Prefix` are believed: links then name what the caller used, and failed logins count for him.",
    )
    project_id_regex: str = Field(
        r"[0-9a-f\-]+", description="What a project id in a path looks like, to tell it from the name of a resource."
    )
    max_limit: int = Field(1000, ge=1, description="The most items of one page of a list.")
    default_volume_type: str = Field(
        "__DEFAULT__", description="The volume type of volumes whose creator names none; made at start if need be."
    )
    resource_filters_file: Path | None = Field(
        None, description="JSON file of the filters that users may use, by resource; default: the built-in choice."
    )
    locale_dir: Path = Field(
        Path("/usr/share/locale"),
        description="Folder of catalogues (`LANGUAGE/LC_MESSAGES/brickyard.mo`) in whose languages errors are told to "
        "callers who ask for one (`Accept-Language`).",
    )
    max_body: int = Field(114688, ge=1024, description="The longest request body that is read, in bytes.")
    sync_timeout: float = Field(180.0, gt=0, description="Seconds that a synchronous call waits for its operation.")

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for network in value:
            ip_network(network)  # its error names what is wrong
        return value
