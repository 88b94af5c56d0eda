"""How the volumes of a type are encrypted: the type's words as the columns of a volume."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from agent.base import ciphers
from agent.base.errors import Invalid
from coordinator.state import types

PLAIN: dict[str, Any] = {"encryption_format": None, "encryption_cipher": None, "encryption_key_size": None}
_FORMATS = {
    "luks": "luks1",
    "luks1": "luks1",
    "luks2": "luks2",
    "nova.volume.encryptors.luks.LuksEncryptor": "luks1",
    "nova.volume.encryptors.luks.Luks2Encryptor": "luks2",
    "os_brick.encryptors.luks.LuksEncryptor": "luks1",
    "LuksEncryptor": "luks1",
}


def of_type(conn: Connection, type_id: str | None, name: str | None) -> dict[str, Any] | None:
    """The encryption columns of a volume of that type; None when it has no encryption. Invalid: unknown provider."""
    row = types.encryption(conn, type_id)
    if row is None:
        return None
    return columns(row.provider, row.cipher, row.key_size, f"Volume type {name}")


def columns(provider: str, cipher: str | None, key_size: int | None, whose: str) -> dict[str, Any]:
    """The columns of a volume encrypted so, with what is usual for what is None. Invalid: no volume is made so."""
    luks = _FORMATS.get(provider)
    if luks is None:
        raise Invalid(reason=f"{whose} has encryption provider {provider!r}, which is not known; "
                             f"known are luks and luks2.")  # fmt: skip
    cipher = cipher or ciphers.DEFAULT
    key_size = key_size or ciphers.usual_key_size(cipher)
    why = ciphers.refusal(cipher, key_size, version=2 if luks == "luks2" else 1)
    if why is not None:
        raise Invalid(reason=f"{whose} asks for an encryption that no volume is made with: {why}. "
                             f"Usual is {ciphers.DEFAULT} with 512 bits.")  # fmt: skip
    return {"encryption_format": luks, "encryption_cipher": cipher, "encryption_key_size": key_size}
