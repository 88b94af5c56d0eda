"""AES-CBC over thousands of sectors: decrypted with one call of AES, encrypted with one for each block of a sector."""

from __future__ import annotations

import numpy as np

from agent.luks.blocks import ROUND_BYTES, WORD, Scratch, Words, decryptor, encryptor, numbers, rounds, words


class Cbc:
    """See `sectors.Sectors`. With `essiv` the IV is the sector's number encrypted under that key, else the number."""

    def __init__(self, key: bytes, size: int, *, short: bool, essiv: bytes | None) -> None:
        self._key, self._size, self._short, self._essiv = key, size, short, essiv

    def decrypt(self, view: memoryview, first: int) -> None:
        aes, scratch = decryptor(self._key), Scratch(min(view.nbytes, ROUND_BYTES) // 8)
        for data, number in rounds(view, self._size, first):
            blocks = data.reshape(-1, self._size // 16, 2)
            scratch.plain[: data.size] = data
            made = scratch.turn(aes, data.size).reshape(blocks.shape)
            before = scratch.plain[: data.size].reshape(blocks.shape)
            np.bitwise_xor(made[:, 1:], before[:, :-1], out=blocks[:, 1:])
            np.bitwise_xor(made[:, 0], self._ivs(number, len(blocks)), out=blocks[:, 0])

    def encrypt(self, view: memoryview, first: int) -> None:
        aes = encryptor(self._key)
        for data, number in rounds(view, self._size, first):
            blocks = data.reshape(-1, self._size // 16, 2)
            last, scratch = self._ivs(number, len(blocks)), Scratch(len(blocks) * 2)
            for index in range(blocks.shape[1]):
                np.bitwise_xor(blocks[:, index], last, out=scratch.plain.reshape(-1, 2))
                last = scratch.turn(aes, scratch.plain.size).reshape(-1, 2).copy()
                blocks[:, index] = last

    def _ivs(self, first: int, count: int) -> Words:
        step = self._size // 512
        if self._essiv is not None:
            return numbers(encryptor(self._essiv), first, count, step, short=False)
        made = words(count * 2).reshape(count, 2)
        made[:, 0] = np.arange(first, first + count * step, step, dtype=WORD)
        made[:, 1] = 0
        if self._short:
            made[:, 0] &= WORD.type(0xFFFFFFFF)
        return made
