"""What all coordinators of a site must have in common: the CA, and the keys that sign tokens.

With a database of its own, a coordinator keeps them in files of its state directory. Where several share a database
they lie in it, sealed with the key-encryption key, which each coordinator was given by hand.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection

from coordinator.enrolment.authority import CaPair, FileCaStore
from coordinator.identity.keys import Key, TokenKeys
from coordinator.keys.store import KeyStore
from coordinator.state.database import Database

_CA, _TOKENS = "ca", "token-keys"
KNOWN_TO_ALL_S = 120.0
"""A new key signs only when every coordinator has read it."""


class SharedCaStore:
    """The CA in the database. One that lies in files of the state directory (of SQLite's time) is taken over."""

    def __init__(self, db: Database, keys: KeyStore, folder: Path) -> None:
        self._db, self._keys, self._folder = db, keys, folder

    def load_or_create(self, make: Callable[[], CaPair]) -> CaPair:
        def fn(conn: Connection) -> CaPair:
            stored = self._keys.of_site(conn, _CA)
            if stored is None:
                pair = FileCaStore(self._folder).load_or_create(make) if self._has_files() else make()
                stored = json.dumps([part.decode() for part in pair]).encode()
                self._keys.put_of_site(conn, _CA, stored)
            key, certificate = json.loads(stored)
            return key.encode(), certificate.encode()

        return self._db.write_now(fn)

    def _has_files(self) -> bool:
        return (self._folder / "certificate.pem").exists()


class SharedTokenKeys:
    """Three keys at most, in the database. `await refresh()` now and then: reads them, and adds one when it is due."""

    def __init__(
        self, db: Database, keys: KeyStore, folder: Path, lifetime: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._db, self._store, self._folder = db, keys, folder
        self._lifetime, self._clock = lifetime, clock
        self._keys: list[Key] = db.write_now(self._current)

    @property
    def signing(self) -> Key:
        """The newest key that all coordinators know by now."""
        known = self._clock() - KNOWN_TO_ALL_S
        return next((key for key in self._keys if key.made <= known), self._keys[-1])

    def find(self, key_id: str) -> Key | None:
        return next((key for key in self._keys if key.id == key_id), None)

    async def refresh(self) -> None:
        """Follow what another coordinator has made; make a new key when the newest is past its life."""
        current = await self._db.read(lambda conn: _parsed(self._store.of_site(conn, _TOKENS)))
        if not current or self._due(current):
            current = await self._db.write(self._current)
        self._keys = current

    def _due(self, keys: list[Key]) -> bool:
        return self._clock() - keys[0].made > self._lifetime

    def _current(self, conn: Connection) -> list[Key]:
        keys = _parsed(self._store.of_site(conn, _TOKENS)) or self._of_files()
        if not keys or self._due(keys):
            keys = [Key(secrets.token_hex(4), secrets.token_bytes(32), self._clock()), *keys[:2]]
        made = [[key.id, base64.b64encode(key.secret).decode(), key.made] for key in keys]
        self._store.put_of_site(conn, _TOKENS, json.dumps(made).encode())
        return keys

    def _of_files(self) -> list[Key]:
        path = self._folder / "token-keys"
        return list(TokenKeys(path, self._lifetime, self._clock).keys) if path.exists() else []


def _parsed(stored: bytes | None) -> list[Key]:
    return [Key(key_id, base64.b64decode(secret), made) for key_id, secret, made in json.loads(stored or b"[]")]
