"""Keyrings of Ceph: who a host is to a cluster, and the key that proves it."""

from __future__ import annotations

import re

_SECTION = re.compile(r"\[client\.([A-Za-z0-9_][A-Za-z0-9_.-]{0,126})\]")


def keys(text: str) -> dict[str, bytes]:
    """By user, without `client.`, the key in base64, in the order of the keyring."""
    found: dict[str, bytes] = {}
    user: str | None = None
    for line in text.splitlines():
        name, _, value = (part.strip() for part in line.partition("="))
        if name.startswith("["):
            match = _SECTION.fullmatch(name)
            user = match[1] if match else None
        elif user is not None and name == "key" and value:
            found[user] = value.encode()
    return found
