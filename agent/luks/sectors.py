"""AES over many sectors at once, in place: the modes that LUKS headers name, behind one small interface.

The number of a sector counts 512 bytes whatever the sector's size is, as dm-crypt counts. One instance may be used
by many threads.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from agent.luks.errors import CipherRefused, NullCipher

if TYPE_CHECKING:
    from agent.luks.native import Native

SECTOR = 512
SECTOR_SIZES = (512, 1024, 2048, 4096)
_XTS_KEYS, _CBC_KEYS = (32, 48, 64), (16, 24, 32)


class Sectors(Protocol):
    """Changes whole sectors of a writable buffer in place; `first` is the number of the first one."""

    def encrypt(self, view: memoryview, first: int) -> None: ...

    def decrypt(self, view: memoryview, first: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Spec:
    """A cipher as a header names it: `mode` is xts or cbc, `iv` is plain, plain64 or essiv:sha256."""

    mode: str
    iv: str

    def check_key(self, key_bytes: int) -> None:
        """Raises CipherRefused when the mode can not have a key of that size."""
        if key_bytes not in (_XTS_KEYS if self.mode == "xts" else _CBC_KEYS):
            raise CipherRefused


_SPECS = {
    f"aes-{mode}-{iv}": Spec(mode, iv)
    for mode, ivs in (("xts", ("plain64", "plain")), ("cbc", ("plain64", "plain", "essiv:sha256")))
    for iv in ivs
}


def spec(text: str) -> Spec:
    """What `aes-xts-plain64` and its kin mean; raises NullCipher, CipherRefused."""
    if "null" in text:
        raise NullCipher
    found = _SPECS.get(text)
    if found is None:
        raise CipherRefused
    return found


def sectors(text: str, key: bytes, size: int = SECTOR) -> Sectors:
    """The cipher `text` with its key, for sectors of `size` bytes; raises NullCipher, CipherRefused."""
    found = spec(text)
    found.check_key(len(key))
    if size not in SECTOR_SIZES:
        raise CipherRefused
    if found.mode == "xts":
        return _xts(key, size, short=found.iv == "plain")
    from agent.luks.cbc import Cbc

    essiv = hashlib.sha256(key).digest() if found.iv == "essiv:sha256" else None
    return Cbc(key, size, short=found.iv == "plain", essiv=essiv)


def _xts(key: bytes, size: int, *, short: bool) -> Sectors:
    from agent.luks.native import native

    library = native()
    if library is not None and library.serves_xts(len(key)):
        return _Compiled(library, key, size, short)
    from agent.luks.xts import Portable

    return Portable(key, size, short=short)


@dataclass(frozen=True, slots=True)
class _Compiled:
    library: Native = field(repr=False)
    key: bytes = field(repr=False)
    size: int
    short: bool

    def encrypt(self, view: memoryview, first: int) -> None:
        self.library.xts(view, first, key=self.key, size=self.size, short=self.short, encrypt=True)

    def decrypt(self, view: memoryview, first: int) -> None:
        self.library.xts(view, first, key=self.key, size=self.size, short=self.short, encrypt=False)
