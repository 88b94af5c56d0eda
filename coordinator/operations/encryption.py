"""How the volumes of a type are encrypted: the type's words as the columns of a volume."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from agent.base.errors import Invalid
from coordinator.state import types

PLAIN: dict[str, Any] = {"encryption_format": None, "encryption_cipher": None, "encryption_key_size": None}
_FORMATS = {
    "luks": "luks1",
    "luks1": "luks1",
    "luks2": "luks2",
    "nova.volume.encryptors.luks.LuksEncryptor": "luks1",
    "nova.volume.encryptors.luks.Luks2Encryptor": "luks2",
}


def of_type(conn: Connection, type_id: str | None, name: str | None) -> dict[str, Any] | None:
    """The encryption columns of a volume of that type; None when it has no encryption. Invalid: unknown provider."""
    row = types.encryption(conn, type_id)
    if row is None:
        return None
    luks = _FORMATS.get(row.provider)
    if luks is None:
        raise Invalid(reason=f"Volume type {name} has encryption provider {row.provider!r}, which is not known; "
                             f"known are luks and luks2.")  # fmt: skip
    return {
        "encryption_format": luks,
        "encryption_cipher": row.cipher or "aes-xts-plain64",
        "encryption_key_size": row.key_size or 512,
    }
