"""What a joining agent and the coordinator's enrolment port say to each other."""

from __future__ import annotations

import base64
import json
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError

from agent.wire.errors import TokenInvalid
from agent.wire.jobs import Name, Wire

_PREFIX = "byj1."
Port = Annotated[int, Field(ge=1, le=65535)]
Pem = Annotated[str, Field(max_length=16384, pattern=r"^-----BEGIN [A-Z ]+-----\n")]


class JoinToken(Wire):
    """The line an operator carries from coordinator to host: where to enrol, which CA to expect, one-time secret."""

    address: str = Field(alias="a", min_length=1, max_length=255)
    port: Port = Field(alias="p")
    ca_sha256: str = Field(alias="f", pattern=r"^[0-9a-f]{64}$")
    id: str = Field(alias="i", pattern=r"^[0-9a-f]{16}$")
    secret: SecretStr = Field(alias="s", min_length=32, max_length=64)

    def line(self) -> str:
        """The token as one line, secret included; never log it."""
        plain = {"a": self.address, "p": self.port, "f": self.ca_sha256, "i": self.id}
        raw = json.dumps({**plain, "s": self.secret.get_secret_value()}, separators=(",", ":")).encode()
        return _PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")

    @classmethod
    def parse(cls, line: str) -> JoinToken:
        """Read a token line; `TokenInvalid` says what is wrong without repeating the secret."""
        text = line.strip()
        if not text.startswith(_PREFIX) or len(text) > 2048:
            raise TokenInvalid(reason=f"it does not begin with {_PREFIX!r}")
        body = text.removeprefix(_PREFIX)
        try:
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            return cls.model_validate(json.loads(raw))
        except ValidationError as error:
            names = {"a": "address", "p": "port", "f": "fingerprint", "i": "id", "s": "secret"}
            bad = {names.get(str(e["loc"][0]), "field") if e["loc"] else "body" for e in error.errors()}
            raise TokenInvalid(reason="damaged: " + ", ".join(sorted(bad))) from None
        except (ValueError, RecursionError):
            raise TokenInvalid(reason="it is cut or damaged") from None


class EnrolRequest(Wire):
    """Body of `POST /enrol`. `address` None: the one that the request comes from."""

    token_id: str = Field(pattern=r"^[0-9a-f]{16}$")
    secret: SecretStr = Field(min_length=32, max_length=64)
    name: Name
    csr: Pem
    address: str | None = Field(None, max_length=255, pattern=r"^[A-Za-z0-9.:_-]+$")
    control_port: Port
    data_port: Port

    def body(self) -> dict[str, object]:
        """The JSON body with the secret in clear; never log it."""
        return {**self.model_dump(mode="json", exclude={"secret"}), "secret": self.secret.get_secret_value()}


class EnrolAnswer(Wire):
    """`certificate` is the chain to present (leaf first), `ca` the certificates to trust, all PEM."""

    host_id: Name
    certificate: str
    ca: str


class HostBundle(Wire):
    """All that an agent needs to be enrolled, in one file made on the coordinator (JSON, mode 0600)."""

    format: int = Field(1, ge=1, le=1)
    name: Name
    key: SecretStr
    certificate: str
    ca: str

    def text(self) -> str:
        """The file's content, key included; never log it."""
        plain = self.model_dump(mode="json", exclude={"key"})
        return json.dumps({**plain, "key": self.key.get_secret_value()}, indent=1) + "\n"
