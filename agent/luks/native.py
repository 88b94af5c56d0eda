"""The compiled part, where it was built and this processor can: AES-XTS in place, PBKDF2 of two blocks at once.

It is optional; `xts` and `kdf` do the same without it. It is believed only after it gave known answers.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import sys
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from agent.base.log import get_logger

_XTS, _SHA = 1, 2
_ALL, _LOW = (1 << 64) - 1, (1 << 32) - 1
_KEY_BYTES = (32, 64)


class Native:
    """The loaded library. Calls let other threads run, and can be made by many."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._able = int(library.brickyard_bulk())
        self._xts, self._pbkdf2 = library.brickyard_xts, library.brickyard_pbkdf2
        size, number, place = ctypes.c_size_t, ctypes.c_uint64, ctypes.c_void_p
        self._xts.argtypes = [ctypes.c_int, ctypes.c_char_p, size, place, size, size, number, number]
        self._pbkdf2.argtypes = [ctypes.c_char_p, place, number]

    def serves_xts(self, key_bytes: int) -> bool:
        return bool(self._able & _XTS) and key_bytes in _KEY_BYTES

    def serves_pbkdf2(self, name: str, size: int) -> bool:
        return bool(self._able & _SHA) and name == "sha256" and 32 < size <= 64

    def xts(self, view: memoryview, first: int, *, key: bytes, size: int, short: bool, encrypt: bool) -> None:
        """Change whole sectors of a writable buffer in place."""
        if view.readonly or view.nbytes % size:
            raise AssertionError("a cipher works in place, on whole sectors")
        place = (ctypes.c_char * view.nbytes).from_buffer(view)
        count = view.nbytes // size
        if self._xts(encrypt, key, len(key), ctypes.addressof(place), count, size, first, _LOW if short else _ALL):
            raise AssertionError("the compiled part does not serve this key")

    def pbkdf2(self, key: bytes, salt: bytes, iterations: int, size: int) -> bytes:
        """`size` (33 to 64) bytes of PBKDF2 with HMAC-SHA-256."""
        first = [hmac.digest(key, salt + number.to_bytes(4, "big"), "sha256") for number in (1, 2)]
        blocks = ctypes.create_string_buffer(b"".join(first), 64)
        padded = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
        if self._pbkdf2(padded, ctypes.addressof(blocks), iterations):
            raise AssertionError("the compiled part does not serve this")
        return blocks.raw[:size]

    def is_right(self) -> bool:
        """Whether it gives known answers."""
        if self._able & _SHA:
            known = hashlib.pbkdf2_hmac("sha256", b"k" * 70, b"salt", 3, 64)
            if self.pbkdf2(b"k" * 70, b"salt", 3, 64) != known:
                return False
        return not self._able & _XTS or self._xts_is_right()

    def _xts_is_right(self) -> bool:
        from agent.base.ciphers import DEFAULT, parse
        from agent.luks.xts import Portable

        spec = parse(DEFAULT)
        assert spec is not None

        for key in (bytes(range(32)), bytes(range(64))):
            for size in (512, 4096):
                ours, theirs = bytearray(b"known" * 2048)[:8192], bytearray(b"known" * 2048)[:8192]
                self.xts(memoryview(ours), _LOW - 3, key=key, size=size, short=False, encrypt=True)
                Portable(spec, key, size).encrypt(memoryview(theirs), _LOW - 3)
                if ours != theirs:
                    return False
                self.xts(memoryview(ours), _LOW - 3, key=key, size=size, short=False, encrypt=False)
                if ours != b"known" * 1638 + b"kn":
                    return False
        return True


@cache
def native() -> Native | None:
    """The compiled part, or None where there is none to be used."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name("_bulk" + suffix)
        try:
            if not path.exists():
                continue
            found = Native(ctypes.CDLL(str(path)))
        except (OSError, AttributeError) as failure:
            get_logger(__name__).warning("the compiled part can not be loaded", reason=str(failure))
            return None
        if found.is_right():
            return found
        get_logger(__name__).error("the compiled part gives wrong answers and is not used", python=sys.version)
    return None
