"""Signed tokens: who, in which scope, until when. What the bearer may do is looked up, never in the token."""

from __future__ import annotations

import base64
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import Literal

from coordinator.identity.errors import TokenRefused
from coordinator.identity.keys import SigningKeys

Kind = Literal["project", "domain", "system", "none"]
_PREFIX = "by1"
_LONGEST = 1024


@dataclass(frozen=True, slots=True)
class Claims:
    """`target` is the id of the project or domain (`all` for system, empty unscoped); times are seconds since 1970."""

    id: str
    user_id: str
    kind: Kind
    target: str
    issued: float
    expires: float
    methods: tuple[str, ...]


def new_token_id() -> str:
    """A fresh audit id."""
    return secrets.token_urlsafe(12)


def sign(claims: Claims, keys: SigningKeys) -> str:
    """The token: `by1.KEY.PAYLOAD.SIGNATURE`."""
    made = [claims.id, claims.user_id, claims.kind, claims.target, claims.issued, claims.expires, *claims.methods]
    key = keys.signing
    head = f"{_PREFIX}.{key.id}.{_text(json.dumps(made, separators=(',', ':')).encode())}"
    return f"{head}.{_text(hmac.digest(key.secret, head.encode(), 'sha256'))}"


def read(token: str, keys: SigningKeys, now: float) -> Claims:
    """The claims of a token whose signature and time are right; raises TokenRefused."""
    head, _, signature = token.rpartition(".")
    parts = head.split(".")
    if len(token) > _LONGEST or len(parts) != 3 or parts[0] != _PREFIX or not token.isascii():
        raise TokenRefused
    key = keys.find(parts[1])
    if key is None or not hmac.compare_digest(_text(hmac.digest(key.secret, head.encode(), "sha256")), signature):
        raise TokenRefused
    made = json.loads(base64.urlsafe_b64decode(parts[2] + "=" * (-len(parts[2]) % 4)))
    token_id, user_id, kind, target, issued, expires, *methods = made
    claims = Claims(token_id, user_id, kind, target, issued, expires, tuple(methods))
    if claims.expires <= now:
        raise TokenRefused
    return claims


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
