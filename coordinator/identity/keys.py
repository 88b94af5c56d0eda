"""The keys that sign tokens: two at most, in a file that only the coordinator reads (0600, replaced whole)."""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from agent.base.errors import Permanent
from agent.base.files import write_whole


class KeysUnsafe(Permanent):
    code = "identity.keys-unsafe"
    status = 500
    sentence = "The token keys in {path} can not be used: {reason}."
    hint = "Make it a regular file of the coordinator's user with mode 0600, or remove it (all users log in again)."


@dataclass(frozen=True, slots=True)
class Key:
    """`made` in seconds since 1970."""

    id: str
    secret: bytes = field(repr=False)
    made: float


class SigningKeys(Protocol):
    """What signs and verifies tokens."""

    @property
    def signing(self) -> Key:
        """The key to sign with now."""

    def find(self, key_id: str) -> Key | None:
        """The key of this id, to verify with; None when it is not good any more."""


class TokenKeys:
    """The newest key signs, both verify. A key rotates when it is older than `lifetime`."""

    def __init__(self, path: Path, lifetime: float, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._lifetime = lifetime
        self._clock = clock
        self._keys: list[Key] = self._load()
        if not self._keys:
            self.rotate()

    @property
    def keys(self) -> tuple[Key, ...]:
        """Newest first."""
        return tuple(self._keys)

    @property
    def signing(self) -> Key:
        """The key to sign with now; rotates first when it is due."""
        if self._clock() - self._keys[0].made > self._lifetime:
            self.rotate()
        return self._keys[0]

    def find(self, key_id: str) -> Key | None:
        return next((key for key in self._keys if key.id == key_id), None)

    def rotate(self) -> None:
        """Make a new key; the one before it stays good for verifying, older ones end."""
        fresh = Key(secrets.token_hex(4), secrets.token_bytes(32), self._clock())
        self._store([fresh, *self._keys[:1]])

    def _load(self) -> list[Key]:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise KeysUnsafe(path=str(self._path), reason=error.strerror) from None
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077 or found.st_uid not in {0, os.geteuid()}:
                raise KeysUnsafe(path=str(self._path), reason="others can reach it")
            try:
                keys = [Key(k["id"], base64.b64decode(k["secret"]), float(k["made"])) for k in json.load(file)][:2]
            except (ValueError, KeyError, TypeError):
                keys = []
        if not keys or any(len(key.secret) < 32 for key in keys):
            raise KeysUnsafe(path=str(self._path), reason="it is damaged")
        return keys

    def _store(self, keys: list[Key]) -> None:
        made = [{"id": k.id, "secret": base64.b64encode(k.secret).decode(), "made": k.made} for k in keys]
        write_whole(self._path, json.dumps(made).encode())
        self._keys = keys
