"""A key on its way to an agent, and the encryption it is for."""

from __future__ import annotations

import base64
from typing import Literal

from pydantic import Field, SecretStr

from agent.wire.basis import Wire


class WireSecret(Wire):
    """A key and its kind: `passphrase` is used as it is, every other type is hex-encoded before use."""

    type: Literal["passphrase", "symmetric", "opaque", "private", "public", "certificate"] = "symmetric"
    value_b64: SecretStr

    @classmethod
    def of(cls, type: str, value: bytes) -> WireSecret:
        return cls.model_validate({"type": type, "value_b64": base64.b64encode(value).decode()})

    def value(self) -> bytes:
        return base64.b64decode(self.value_b64.get_secret_value())

    def revealed(self) -> dict[str, str]:
        """The JSON form with the value in clear: for the request body alone."""
        return {"type": self.type, "value_b64": self.value_b64.get_secret_value()}


class LuksFormat(Wire):
    """How a volume is to be encrypted (from the volume type). `iterations` None: the tool's own default."""

    format: Literal["luks1", "luks2"] = "luks1"
    cipher: str = Field("aes-xts-plain64", pattern=r"^[a-z0-9:-]{1,64}$")
    key_size: Literal[128, 192, 256, 384, 512] = 512
