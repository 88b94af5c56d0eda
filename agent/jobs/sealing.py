"""Secrets that this host must have again after a reboot, sealed under a key that never leaves its state folder."""

from __future__ import annotations

import base64
import os
import threading
from pathlib import Path

from agent.base.errors import Permanent
from agent.base.files import write_whole

_SIZE = 32


class HostKeyInvalid(Permanent):
    code = "agent.host-key"
    status = 500
    sentence = "The host key {path} is not usable: {reason}."
    hint = "Restore the file, or remove it and let the coordinator export the volumes anew."


class Sealer:
    """`seal` binds a value to a name; `open` gives it back for that name alone. The key is made when first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._making = threading.Lock()

    def seal(self, clear: bytes, bound_to: str) -> str:
        """Printable form. Blocking."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = os.urandom(12)
        return base64.b64encode(nonce + AESGCM(self._key()).encrypt(nonce, clear, bound_to.encode())).decode()

    def open(self, sealed: str, bound_to: str) -> bytes | None:
        """None when it was sealed under another key or for another name. Blocking."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        raw = base64.b64decode(sealed)
        try:
            return AESGCM(self._key()).decrypt(raw[:12], raw[12:], bound_to.encode())
        except InvalidTag:
            return None

    def _key(self) -> bytes:
        with self._making:
            try:
                key = self._path.read_bytes()
            except FileNotFoundError:
                key = os.urandom(_SIZE)
                write_whole(self._path, key, 0o600)
            except OSError as error:
                raise HostKeyInvalid(path=str(self._path), reason=error.strerror or str(error)) from error
        if len(key) != _SIZE:
            raise HostKeyInvalid(path=str(self._path), reason=f"it has {len(key)} bytes, not {_SIZE}")
        return key
