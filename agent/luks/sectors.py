"""Disk ciphers over many sectors at once, in place: what LUKS headers name, behind one small interface.

The number of a sector counts 512 bytes whatever the sector's size is, as dm-crypt counts. One instance may be used
by many threads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from agent.base import ciphers
from agent.luks.errors import CipherRefused, NullCipher

if TYPE_CHECKING:
    from agent.luks.native import Native

SECTOR = 512
SECTOR_SIZES = (512, 1024, 2048, 4096)


class Sectors(Protocol):
    """Changes whole sectors of a writable buffer in place; `first` is the number of the first one."""

    def encrypt(self, view: memoryview, first: int) -> None: ...

    def decrypt(self, view: memoryview, first: int) -> None: ...


def check(text: str, key_bytes: int | None = None) -> ciphers.Spec:
    """What `aes-xts-plain64` and its kin mean; raises NullCipher, and CipherRefused, also for a key of a wrong size."""
    if "null" in text.partition("-")[0]:  # "capi:ecb(cipher_null)", too; "aes-cbc-null" is a cipher
        raise NullCipher
    found = ciphers.parse(text)
    if found is None or (key_bytes is not None and key_bytes not in found.key_sizes):
        raise CipherRefused
    return found


def sectors(text: str, key: bytes, size: int = SECTOR) -> Sectors:
    """The cipher `text` with its key, for sectors of `size` bytes; raises NullCipher, CipherRefused."""
    spec = check(text, len(key))
    if size not in SECTOR_SIZES:
        raise CipherRefused
    if spec.mode == "xts":
        return _xts(spec, key, size)
    from agent.luks import cbc
    from agent.luks.blocks import block
    from agent.luks.ivs import Ivs

    cipher, ivs = block(spec.algorithm, key), Ivs(spec, key, size)
    if spec.mode == "cbc":
        return cbc.Cbc(cipher, ivs, size=size, block=spec.block)
    return cbc.Ctr(cipher, ivs, size=size) if spec.mode == "ctr" else cbc.Ecb(cipher, size)


def _xts(spec: ciphers.Spec, key: bytes, size: int) -> Sectors:
    from agent.luks.native import native

    library = native()
    if spec.algorithm == "aes" and spec.iv in ("plain", "plain64") and library and library.serves_xts(len(key)):
        return _Compiled(library, key, size, spec.iv == "plain")
    from agent.luks.xts import Portable

    return Portable(spec, key, size)


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
