"""The `[notifications]` table of coordinator.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from agent.base.config import Section, read_secret

MESSAGING = "messaging"


class WebhookSettings(Section):
    """`[[notifications.webhooks]]`: one address that events are posted to."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,40}$", description="What it is called; how far it came is kept by it."
    )
    url: str = Field(description="Where events are posted.")
    secret_file: Path | None = Field(
        None, description="File (mode 0400) with the secret that each call is signed with; default: not signed."
    )
    types: list[str] = Field(["*"], description="Types of events that are sent; `*` stands for any characters.")
    ca_file: Path | None = Field(
        None, description="Certificates that vouch for an https address; default: the system's."
    )
    timeout_s: float = Field(10.0, gt=0, le=300, description="Seconds after which a call has failed.")

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")) or "@" in value.split("/")[2]:
            raise ValueError("is not an address like https://hooks.example/brickyard")
        return value

    @property
    def receiver(self) -> str:
        """The name by which it is kept how far it came."""
        return f"webhook:{self.name}"

    def secret(self) -> bytes | None:
        """Raises SecretUnreadable."""
        if self.secret_file is None:
            return None
        return read_secret(f"webhook-{self.name}", self.secret_file).strip()


class MessagingSettings(Section):
    """`[notifications.messaging]`: a message bus, through oslo.messaging."""

    transport_url: str | None = Field(
        None, description="Address of the bus without a password; with one, name `transport_url_file` instead."
    )
    transport_url_file: Path | None = Field(
        None, description="File (mode 0400) with the address, for example `rabbit://user:password@host:5672/`."
    )
    driver: Literal["messagingv2", "messaging"] = Field("messagingv2", description="Format of the messages.")
    topics: list[str] = Field(["notifications"], min_length=1, description="Topics (queues) that are sent to.")
    timeout_s: float = Field(30.0, gt=0, le=600, description="Seconds after which a message was not sent.")
    capacity_s: float = Field(
        0.0, ge=0, description="Seconds between notifications of the capacity of pools that have changed; 0: none."
    )

    @model_validator(mode="after")
    def _one_address(self) -> MessagingSettings:
        if (self.transport_url is None) == (self.transport_url_file is None):
            raise ValueError("needs either transport_url or transport_url_file")
        if self.transport_url is not None and "@" in self.transport_url:
            raise ValueError("transport_url must not hold a password; name transport_url_file instead")
        return self

    def url(self) -> str:
        """Raises SecretUnreadable."""
        if self.transport_url is not None:
            return self.transport_url
        return read_secret("notifications-transport-url", self.transport_url_file).decode().strip()


class NotificationsSettings(Section):
    webhooks: list[WebhookSettings] = Field(default_factory=list, description="Addresses that events are posted to.")
    messaging: MessagingSettings | None = Field(None, description="A message bus that is told in Cinder's words.")
    look_s: float = Field(
        10.0, gt=0, le=60, description="Seconds after which it is looked for new events where no news of any came."
    )
    give_up_s: float = Field(
        86400.0, gt=0, description="Seconds after which an event that a receiver does not take is passed over."
    )

    @property
    def receivers(self) -> frozenset[str]:
        """The names of all that are told."""
        return frozenset(hook.receiver for hook in self.webhooks) | (
            frozenset() if self.messaging is None else {MESSAGING}
        )

    @field_validator("webhooks")
    @classmethod
    def _names_differ(cls, value: list[WebhookSettings]) -> list[WebhookSettings]:
        if len({hook.name for hook in value}) != len(value):
            raise ValueError("two webhooks have the same name")
        return value
