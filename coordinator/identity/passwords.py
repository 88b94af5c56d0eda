"""Passwords: bcrypt over a digest, so that no length is cut off; slow by intent, so always in a thread."""

from __future__ import annotations

import base64
import hashlib
from functools import cache


def hashed(password: str, rounds: int) -> str:
    """The text to store. Blocks for some 2**rounds / 20 000 seconds."""
    import bcrypt

    return bcrypt.hashpw(_digest(password), bcrypt.gensalt(rounds)).decode()


def matches(password: str, stored: str | None, rounds: int) -> bool:
    """Whether `password` is the one of `stored`; takes as long when there is none."""
    import bcrypt

    candidate = stored or _nobody(rounds)
    try:
        right = bcrypt.checkpw(_digest(password), candidate.encode())
    except ValueError:
        return False
    return right and stored is not None


def is_hash(text: str) -> bool:
    """Whether `text` has the form that `hashed` gives."""
    return len(text) == 60 and text[:4] in {"$2a$", "$2b$"} and text.isascii()


@cache
def _nobody(rounds: int) -> str:
    return hashed("", rounds)


def _digest(password: str) -> bytes:
    return base64.b64encode(hashlib.sha256(password.encode()).digest())
