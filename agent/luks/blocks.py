"""What the bulk modes share: a cipher over many blocks in one call, and sectors cut into rounds."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, CipherAlgorithm
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from numpy.typing import NDArray

from agent.luks.errors import CipherRefused

Words = NDArray[np.uint64]
WORD = np.dtype("<u8")
# So many bytes at once that all arrays of a round stay in a core's own cache.
ROUND_BYTES = 256 << 10
# Where a round is many calls, one for each block of a sector, those must be worth it.
LONG_ROUND_BYTES = 4 << 20
_BLOCK = 16


def words(count: int) -> Words:
    return np.empty(count, WORD)


class Turn(Protocol):
    """Whole blocks, each by itself, through a cipher one way. For one thread."""

    def update(self, data: bytes, /) -> bytes: ...

    def update_into(self, data: memoryview, buf: memoryview, /) -> int: ...


class Block(Protocol):
    """A block cipher with its key; may be used by many threads."""

    def encryptor(self) -> Turn: ...

    def decryptor(self) -> Turn: ...


def block(algorithm: str, key: bytes) -> Block:
    """The block cipher of that name (see `ciphers`); raises CipherRefused where the library here lacks it."""
    if algorithm == "serpent":
        from agent.luks.serpent import Serpent

        return Serpent(key)
    if algorithm == "twofish":
        from agent.luks.twofish import Twofish

        return Twofish(key)
    return _Library(algorithm, key)


class _Library:
    """One of OpenSSL's."""

    def __init__(self, algorithm: str, key: bytes) -> None:
        self._cipher = Cipher(_algorithm(algorithm)(key), ECB())  # noqa: S305  the mode is built on top of it
        try:
            self._cipher.encryptor()
        except UnsupportedAlgorithm:
            raise CipherRefused from None

    def encryptor(self) -> Turn:
        return self._cipher.encryptor()

    def decryptor(self) -> Turn:
        return self._cipher.decryptor()


def _algorithm(name: str) -> Callable[[bytes], CipherAlgorithm]:
    if name == "aes":
        return AES
    where, called = ("primitives", "decrepit"), {"sm4": "SM4", "camellia": "Camellia", "cast5": "CAST5"}[name]
    for place in reversed(where):  # the library moved some of them
        with contextlib.suppress(ImportError, AttributeError):
            module = importlib.import_module(f"cryptography.hazmat.{place}.ciphers.algorithms")
            found: Callable[[bytes], CipherAlgorithm] = getattr(module, called)
            return found
    raise CipherRefused


class Scratch:
    """Room for one round of a cipher: words go in at `plain`, and come out at `made`."""

    def __init__(self, count: int) -> None:
        self._bytes = bytearray(count * 8 + _BLOCK)
        self.plain = words(count)
        self.made: Words = np.frombuffer(self._bytes, WORD, count)
        self._in, self._out = self.plain.data.cast("B"), memoryview(self._bytes)

    def turn(self, cipher: Turn, count: int) -> Words:
        """The first `count` words of `plain` through `cipher`."""
        cipher.update_into(self._in[: count * 8], self._out[: count * 8 + _BLOCK])
        return self.made[:count]


def turned(cipher: Turn, blocks: Words) -> Words:
    """A few blocks through `cipher`."""
    return np.frombuffer(cipher.update(blocks.tobytes()), WORD).reshape(blocks.shape)


def rounds(view: memoryview, size: int, first: int, most: int = ROUND_BYTES) -> Iterator[tuple[Words, int]]:
    """Cut whole sectors of `size` bytes into rounds: their words (of `view` itself) and the first one's number."""
    if view.readonly or view.nbytes % size:
        raise AssertionError("a cipher works in place, on whole sectors")
    for at in range(0, view.nbytes, most):
        yield np.frombuffer(view[at : at + most], WORD), first + at // 512
