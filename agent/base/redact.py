"""What must not be shown: one rule for names and texts, used by logs, configuration errors and support bundles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[hidden]"
_DEPTH = 6

_WORDS = frozenset(
    {"password", "passwords", "passwd", "passphrase", "passphrases", "secret", "secrets", "token", "tokens"}
    | {"credential", "credentials", "authorization", "cookie", "cookies", "kek"}
)
_PHRASES = (
    "private_key", "encryption_key", "key_material", "signing_key", "session_key", "master_key", "volume_key",
    "api_key", "auth_key", "value_b64", "payload_b64", "chap_auth",
)  # fmt: skip
_HARMLESS_END = frozenset(
    {"id", "ids", "uuid", "name", "names", "ref", "refs", "count", "type", "types", "kind", "path", "file", "files"}
    | {"dir", "age", "ttl", "s", "seconds", "lifetime", "expires", "expiry", "state", "status", "policy"}
)
_SPLIT = re.compile(r"[^a-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_IN_TEXT = re.compile(
    r"(?i)([\w-]*(?:password|passwd|passphrase|secret|token|authorization|private_key|value_b64|payload_b64)[\"']?\s*[:=]\s*)"
    r"(?:(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')|((?:bearer|basic)\s+)?[^\s,;&\"'}\])]+)"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/_.~=-]{8,}")
_USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@")
_PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(?:-----END \1-----|\Z)", re.DOTALL)
_MAY_HIDE = re.compile(r"(?i)pass|secret|token|authoriz|private|value_b64|payload_b64|bearer|basic|://")


def is_secret_name(name: str) -> bool:
    """Whether a key, header or field of this name holds something secret (`token` yes, `token_id` no)."""
    words = [word for word in _SPLIT.split(_CAMEL.sub("_", name).lower()) if word]
    if not words or words[-1] in _HARMLESS_END:
        return False
    return not _WORDS.isdisjoint(words) or any(phrase in "_".join(words) for phrase in _PHRASES)


def redacted_text(text: str) -> str:
    """`text` with passwords, tokens, credentials in URLs and private keys replaced by `[hidden]`."""
    if not _MAY_HIDE.search(text):
        return text
    text = _PEM.sub(HIDDEN, text)
    text = _IN_TEXT.sub(lambda found: found[1] + HIDDEN, text)
    text = _BEARER.sub(lambda found: f"{found[1]} {HIDDEN}", text)
    return _USERINFO.sub(lambda found: f"{found[1]}:{HIDDEN}@", text)


def redacted(name: str, value: Any, depth: int = 0) -> Any:
    """`value` of the field `name` in a form that may be shown; containers are copied, bytes become their length."""
    if value is None or isinstance(value, (bool, int, float)):
        return HIDDEN if name and not isinstance(value, bool) and value is not None and is_secret_name(name) else value
    if name and is_secret_name(name):
        return HIDDEN
    if isinstance(value, str):
        return redacted_text(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if depth >= _DEPTH or _holds_secret(value):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(key): redacted(str(key), item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redacted("", item, depth + 1) for item in value]
    return value


def _holds_secret(value: object) -> bool:
    """Values that carry a secret by their type: pydantic's, and the wire's with a `revealed` form."""
    kind = type(value)
    return hasattr(kind, "get_secret_value") or hasattr(kind, "revealed")
