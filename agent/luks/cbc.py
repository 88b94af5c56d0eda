"""CBC over thousands of sectors: decrypted with one call of the cipher, encrypted with one for each block of a sector.

And the two modes without a chain, which others made: ECB and CTR.
"""

from __future__ import annotations

import numpy as np

from agent.luks.blocks import LONG_ROUND_BYTES, ROUND_BYTES, WORD, Block, Scratch, Words, rounds
from agent.luks.ivs import Ivs


class Cbc:
    """See `sectors.Sectors`; `block` is the bytes of a block."""

    def __init__(self, cipher: Block, ivs: Ivs, *, size: int, block: int) -> None:
        self._cipher, self._ivs, self._size, self._block = cipher, ivs, size, block

    def _shape(self) -> tuple[int, int, int]:
        return -1, self._size // self._block, self._block // 8

    def decrypt(self, view: memoryview, first: int) -> None:
        turn, scratch = self._cipher.decryptor(), Scratch(min(view.nbytes, ROUND_BYTES) // 8)
        for data, number in rounds(view, self._size, first):
            blocks = data.reshape(self._shape())
            scratch.plain[: data.size] = data
            made = scratch.turn(turn, data.size).reshape(blocks.shape)
            before = scratch.plain[: data.size].reshape(blocks.shape)
            np.bitwise_xor(made[:, 1:], before[:, :-1], out=blocks[:, 1:])
            np.bitwise_xor(made[:, 0], self._ivs.of(number, len(blocks)), out=blocks[:, 0])

    def encrypt(self, view: memoryview, first: int) -> None:
        turn, width = self._cipher.encryptor(), self._block // 8
        for data, number in rounds(view, self._size, first, LONG_ROUND_BYTES):
            blocks = data.reshape(self._shape())
            last, scratch = self._ivs.of(number, len(blocks)), Scratch(len(blocks) * width)
            for index in range(blocks.shape[1]):
                np.bitwise_xor(blocks[:, index], last, out=scratch.plain.reshape(-1, width))
                last = scratch.turn(turn, scratch.plain.size).reshape(-1, width).copy()
                blocks[:, index] = last


class Ecb:
    """See `sectors.Sectors`: no sector differs from another."""

    def __init__(self, cipher: Block, size: int) -> None:
        self._cipher, self._size = cipher, size

    def decrypt(self, view: memoryview, first: int) -> None:
        for data, _ in rounds(view, self._size, first):
            data[:] = np.frombuffer(self._cipher.decryptor().update(data.tobytes()), WORD)

    def encrypt(self, view: memoryview, first: int) -> None:
        for data, _ in rounds(view, self._size, first):
            data[:] = np.frombuffer(self._cipher.encryptor().update(data.tobytes()), WORD)


class Ctr:
    """See `sectors.Sectors`: a sector's IV is a number of 128 bits, its first byte the highest, counted up by block."""

    def __init__(self, cipher: Block, ivs: Ivs, *, size: int) -> None:
        self._cipher, self._ivs, self._size = cipher, ivs, size

    def encrypt(self, view: memoryview, first: int) -> None:
        for data, number in rounds(view, self._size, first):
            counters = self._counters(number, data.nbytes // self._size)
            stream = np.frombuffer(self._cipher.encryptor().update(counters.tobytes()), WORD)
            np.bitwise_xor(data, stream, out=data)

    decrypt = encrypt

    def _counters(self, first: int, count: int) -> Words:
        ivs = self._ivs.of(first, count).byteswap()
        made = np.empty((count, self._size // 16, 2), WORD)
        made[..., 1] = ivs[:, 1:] + np.arange(self._size // 16, dtype=WORD)
        made[..., 0] = ivs[:, :1] + (made[..., 1] < ivs[:, 1:])
        return made.byteswap()
