"""What the bulk modes share: AES over many blocks in one call, and the numbers of sectors as blocks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from numpy.typing import NDArray

Words = NDArray[np.uint64]
WORD = np.dtype("<u8")
# So many bytes at once that all arrays of a round stay in a core's own cache.
ROUND_BYTES = 256 << 10
_BLOCK = 16


def words(count: int) -> Words:
    return np.empty(count, WORD)


class Scratch:
    """Room for one round of AES: words go in at `plain`, and come out at `made`."""

    def __init__(self, count: int) -> None:
        self._bytes = bytearray(count * 8 + _BLOCK)
        self.plain = words(count)
        self.made: Words = np.frombuffer(self._bytes, WORD, count)
        self._in, self._out = self.plain.data.cast("B"), memoryview(self._bytes)

    def turn(self, aes: CipherContext, count: int) -> Words:
        """The first `count` words of `plain` through `aes`."""
        aes.update_into(self._in[: count * 8], self._out[: count * 8 + _BLOCK])
        return self.made[:count]


def encryptor(key: bytes) -> CipherContext:
    return Cipher(AES(key), ECB()).encryptor()  # noqa: S305  the mode is built on top of it


def decryptor(key: bytes) -> CipherContext:
    return Cipher(AES(key), ECB()).decryptor()  # noqa: S305


def numbers(aes: CipherContext, first: int, count: int, step: int, *, short: bool) -> Words:
    """The numbers first, first+step, … as 16-byte blocks through `aes`; `short` keeps their low 32 bits alone."""
    plain = np.zeros((count, 2), WORD)
    plain[:, 0] = np.arange(first, first + count * step, step, dtype=WORD)
    if short:
        plain[:, 0] &= WORD.type(0xFFFFFFFF)
    return np.frombuffer(aes.update(plain.tobytes()), WORD).reshape(count, 2)


def rounds(view: memoryview, size: int, first: int) -> Iterator[tuple[Words, int]]:
    """Cut whole sectors of `size` bytes into rounds: their words (of `view` itself) and the first one's number."""
    if view.readonly or view.nbytes % size:
        raise AssertionError("a cipher works in place, on whole sectors")
    per_round = ROUND_BYTES // size * size
    for at in range(0, view.nbytes, per_round):
        yield np.frombuffer(view[at : at + per_round], WORD), first + at // 512
