"""Twofish over thousands of blocks at once: a key makes four tables, and numpy looks all words up in them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
Bytes = NDArray[np.uint8]
_WORD = np.dtype("<u4")
_NIBBLES = (
    ("817d6f320b59eca4", "ecb81235f4a6709d", "ba5e6d90c8f32471", "d7f4126e9b3085ca"),
    ("28bdf76e31940ac5", "1e2b4c376da5f908", "4c75169a0ed82b3f", "b951c3de647f208a"),
)
_MDS = ((0x01, 0xEF, 0x5B, 0x5B), (0x5B, 0xEF, 0xEF, 0x01), (0xEF, 0x5B, 0x01, 0xEF), (0xEF, 0x01, 0xEF, 0x5B))
_RS = (
    (0x01, 0xA4, 0x55, 0x87, 0x5A, 0x58, 0xDB, 0x9E), (0xA4, 0x56, 0x82, 0xF3, 0x1E, 0xC6, 0x68, 0xE5),
    (0x02, 0xA1, 0xFC, 0xC1, 0x47, 0xAE, 0x3D, 0x19), (0xA4, 0x55, 0x87, 0x5A, 0x58, 0xDB, 0x9E, 0x03),
)  # fmt: skip
_MDS_FIELD, _RS_FIELD = 0x169, 0x14D
# Which of the two permutations each byte of a word goes through; the last column is the first applied to 32-byte keys.
_ORDER = ((1, 0, 0, 1, 1), (0, 0, 1, 1, 0), (1, 1, 0, 0, 0), (0, 1, 1, 0, 1))
_STEP, _ROUNDS, _ALL = 0x01010101, 16, 0xFFFFFFFF
# So many blocks at once that all rows stay in a core's own cache.
_AT_ONCE = 8192


def _permutation(rows: tuple[str, ...]) -> Bytes:
    first, second, third, fourth = ([int(digit, 16) for digit in row] for row in rows)
    made = []
    for value in range(256):
        high, low = value >> 4, value & 15
        for upper, lower in ((first, second), (third, fourth)):
            high, low = high ^ low, high ^ (low >> 1 | (low & 1) << 3) ^ (high << 3 & 15)
            high, low = upper[high], lower[low]
        made.append(low << 4 | high)
    return np.array(made, np.uint8)


_Q = tuple(_permutation(rows) for rows in _NIBBLES)


def _times(left: int, right: int, field: int) -> int:
    made = 0
    while right:
        if right & 1:
            made ^= left
        left, right = left << 1, right >> 1
        if left & 0x100:
            left ^= field
    return made


# Of each byte of a word what it adds to the product with the matrix.
_MIX = [
    np.array([sum(_times(_MDS[row][place], value, _MDS_FIELD) << 8 * row for row in range(4)) for value in range(256)],
             _WORD)
    for place in range(4)
]  # fmt: skip


def _looked_up(place: int, values: Bytes, keys: list[bytes]) -> Words:
    """What the byte `place` of each word adds to h of the word; `keys` is the list L."""
    order = _ORDER[place]
    for index in reversed(range(len(keys))):
        values = _Q[order[index + 1]][values] ^ np.uint8(keys[index][place])
    return _MIX[place][_Q[order[0]][values]]


def _h(word: int, keys: list[bytes]) -> int:
    made = 0
    for place in range(4):
        made ^= int(_looked_up(place, np.array([word >> 8 * place & 255], np.uint8), keys)[0])
    return made


def _turned(word: int, by: int) -> int:
    return (word << by | word >> 32 - by) & _ALL


def _round_keys(key: bytes) -> list[int]:
    words = [key[at : at + 4] for at in range(0, len(key), 4)]
    made = []
    for index in range(_ROUNDS + 4):
        left = _h(2 * index * _STEP, words[::2])
        right = _turned(_h((2 * index + 1) * _STEP, words[1::2]), 8)
        made += [left + right & _ALL, _turned(left + 2 * right & _ALL, 9)]
    return made


def _tables(key: bytes) -> list[Words]:
    parts: list[bytes] = []
    for at in range(0, len(key), 8):
        part = bytes(_reduced(row, key[at : at + 8]) for row in _RS)
        parts.insert(0, part)
    every = np.arange(256, dtype=np.uint8)
    return [_looked_up(place, every, parts) for place in range(4)]


def _reduced(row: tuple[int, ...], part: bytes) -> int:
    made = 0
    for factor, value in zip(row, part, strict=True):
        made ^= _times(factor, value, _RS_FIELD)
    return made


class Twofish:
    """See `blocks.Block`: it and what it gives may be used by many threads."""

    def __init__(self, key: bytes) -> None:
        self._keys = np.array(_round_keys(key), _WORD)
        self._tables = _tables(key)

    def encryptor(self) -> _Turn:
        return _Turn(self._keys, self._tables, back=False)

    def decryptor(self) -> _Turn:
        return _Turn(self._keys, self._tables, back=True)


class _Turn:
    def __init__(self, keys: Words, tables: list[Words], *, back: bool) -> None:
        self._keys, self._tables, self._back = keys, tables, back

    def update(self, data: bytes, /) -> bytes:
        made = bytearray(len(data))
        self.update_into(memoryview(data), memoryview(made))
        return bytes(made)

    def update_into(self, data: memoryview, buf: memoryview, /) -> int:
        source = np.frombuffer(data, _WORD).reshape(-1, 4)
        made = np.frombuffer(buf, _WORD, data.nbytes // 4).reshape(-1, 4)
        outer, inner = (self._keys[4:8], self._keys[:4]) if self._back else (self._keys[:4], self._keys[4:8])
        for at in range(0, len(source), _AT_ONCE):
            part = source[at : at + _AT_ONCE]
            rows = [part[:, index] ^ outer[index] for index in range(4)]
            rows = self._decrypted(rows) if self._back else self._encrypted(rows)
            for index, row in enumerate(rows):
                np.bitwise_xor(row, inner[index], out=made[at : at + _AT_ONCE, index])
        return data.nbytes

    def _encrypted(self, rows: list[Words]) -> list[Words]:
        zero, one, two, three = rows
        for index in range(_ROUNDS):
            left, right = self._mixed(zero, one, index)
            two = _right(two ^ left, 1)
            three = _right(three, 31) ^ right
            zero, one, two, three = two, three, zero, one
        return [two, three, zero, one]

    def _decrypted(self, rows: list[Words]) -> list[Words]:
        zero, one, two, three = rows
        for index in reversed(range(_ROUNDS)):
            left, right = self._mixed(zero, one, index)
            two = _right(two, 31) ^ left
            three = _right(three ^ right, 1)
            zero, one, two, three = two, three, zero, one
        return [two, three, zero, one]

    def _mixed(self, zero: Words, one: Words, index: int) -> tuple[Words, Words]:
        left, right = self._g(zero), self._g(one, 1)
        left += right
        right += left
        left += self._keys[8 + 2 * index]
        right += self._keys[9 + 2 * index]
        return left, right

    def _g(self, row: Words, turned: int = 0) -> Words:
        """Of the row turned left by that many bytes."""
        # Whatever numpy worked out is in the processor's own order of bytes.
        places = row.astype(_WORD, copy=False).view(np.uint8).reshape(-1, 4)
        made = self._tables[turned][places[:, 0]]
        for place in range(1, 4):
            made ^= self._tables[(place + turned) % 4][places[:, place]]
        return made


def _right(row: Words, by: int) -> Words:
    return (row >> np.uint32(by)) | (row << np.uint32(32 - by))
