"""Serpent over thousands of blocks at once: its S-boxes are formulas on whole words, so numpy runs them side by side.

The formulas are worked out from the published tables: each output bit is a sum of products of the four input bits.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.uint32]
_WORD = np.dtype("<u4")
_TABLES = (
    "38f1a65bed42709c", "fc27905a1be86d34", "86793cafd1e40b52", "0fb8c963d124a75e",
    "1f83c0b6254a9e7d", "f52b4a9c03e8d671", "72c5846be91fd3a0", "1df0e82b74ca9356",
)  # fmt: skip
_BOXES = tuple(tuple(int(digit, 16) for digit in row) for row in _TABLES)
_BACK = tuple(tuple(row.index(value) for value in range(16)) for row in _BOXES)
_PHI, _ALL, _ROUNDS = 0x9E3779B9, 0xFFFFFFFF, 32
# So many blocks at once that all rows stay in a core's own cache.
_AT_ONCE = 16384
_REGISTERS = 48


class _Formula(NamedTuple):
    """Products and sums of two registers into a third, in order; then the register, and whether to invert, per bit.

    Registers 1, 2, 4 and 8 hold the four input words, register n the product of those that n is the sum of.
    """

    products: tuple[tuple[int, int, int], ...]
    sums: tuple[tuple[int, int, int], ...]
    outputs: tuple[tuple[int, bool], ...]


@cache
def _formula(table: tuple[int, ...]) -> _Formula:
    wanted = [_terms(table, bit) for bit in range(4)]
    needed = {term for terms in wanted for term in terms if term & (term - 1)}
    needed |= {term & (term - 1) for term in needed if term.bit_count() == 3}
    products = [(term & (term - 1), term & -term, term) for term in sorted(needed, key=int.bit_count)]
    if any(term == 15 for *_, term in products) and 14 not in needed:
        products = [(6, 9, 15) if term == 15 else (left, right, term) for left, right, term in products]
    inverted, sums, free = [0 in terms for terms in wanted], [], 16
    left_over = [terms - {0} for terms in wanted]
    while any(len(terms) > 1 for terms in left_over):
        pairs = Counter(pair for terms in left_over for pair in combinations(sorted(terms), 2))
        (left, right), _ = pairs.most_common(1)[0]
        sums.append((left, right, free))
        left_over = [terms - {left, right} | {free} if {left, right} <= terms else terms for terms in left_over]
        free += 1
    outputs = [(next(iter(terms)), flag) for terms, flag in zip(left_over, inverted, strict=True)]
    return _Formula(tuple(products), tuple(sums), tuple(outputs))


def _terms(table: tuple[int, ...], bit: int) -> set[int]:
    terms = [value >> bit & 1 for value in table]
    for step in (1, 2, 4, 8):
        for at in range(16):
            if at & step:
                terms[at] ^= terms[at ^ step]
    return {at for at in range(16) if terms[at]}


def _keys(key: bytes) -> list[list[int]]:
    """The 33 round keys, four words each."""
    padded = int.from_bytes(key, "little") | (1 << len(key) * 8 if len(key) < 32 else 0)
    words = [padded >> 32 * index & _ALL for index in range(8)]
    for index in range(4 * (_ROUNDS + 1)):
        mixed = words[-8] ^ words[-5] ^ words[-3] ^ words[-1] ^ _PHI ^ index
        words.append((mixed << 11 | mixed >> 21) & _ALL)
    made = []
    for index in range(_ROUNDS + 1):
        four, box = words[8 + 4 * index : 12 + 4 * index], _BOXES[(3 - index) % 8]
        picked = [box[sum((word >> bit & 1) << place for place, word in enumerate(four))] for bit in range(32)]
        made.append([sum((value >> place & 1) << bit for bit, value in enumerate(picked)) for place in range(4)])
    return made


class Serpent:
    """See `blocks.Block`: it and what it gives may be used by many threads."""

    def __init__(self, key: bytes) -> None:
        self._keys = np.array(_keys(key), _WORD)

    def encryptor(self) -> _Turn:
        return _Turn(self._keys, back=False)

    def decryptor(self) -> _Turn:
        return _Turn(self._keys, back=True)


class _Turn:
    def __init__(self, keys: Rows, *, back: bool) -> None:
        self._keys, self._back = keys, back

    def update(self, data: bytes, /) -> bytes:
        made = bytearray(len(data))
        self.update_into(memoryview(data), memoryview(made))
        return bytes(made)

    def update_into(self, data: memoryview, buf: memoryview, /) -> int:
        source, made = np.frombuffer(data, _WORD).reshape(-1, 4), np.frombuffer(buf, _WORD, data.nbytes // 4)
        registers = np.empty((_REGISTERS, min(_AT_ONCE, len(source))), _WORD)
        change = self._decrypt if self._back else self._encrypt
        for at in range(0, len(source), _AT_ONCE):
            part = source[at : at + _AT_ONCE]
            work = _Work(registers[:, : len(part)])
            work.take(part.T)
            change(work)
            made.reshape(-1, 4)[at : at + _AT_ONCE] = work.words().T
        return data.nbytes

    def _encrypt(self, work: _Work) -> None:
        for index in range(_ROUNDS):
            work.mix(self._keys[index])
            work.box(_BOXES[index % 8])
            if index < _ROUNDS - 1:
                work.spread()
        work.mix(self._keys[_ROUNDS])

    def _decrypt(self, work: _Work) -> None:
        work.mix(self._keys[_ROUNDS])
        for index in reversed(range(_ROUNDS)):
            if index < _ROUNDS - 1:
                work.gather()
            work.box(_BACK[index % 8])
            work.mix(self._keys[index])


class _Work:
    """The four words of many blocks, and what the rounds do with them."""

    def __init__(self, registers: Rows) -> None:
        self._all = list(registers)
        self._spare = self._all[-1]

    def words(self) -> Rows:
        return np.stack(self._in())

    def _in(self) -> list[Rows]:
        return [self._all[1], self._all[2], self._all[4], self._all[8]]

    def take(self, words: Rows) -> None:
        for row, word in zip(self._in(), words, strict=True):
            row[:] = word

    def mix(self, key: Rows) -> None:
        for row, word in zip(self._in(), key, strict=True):
            np.bitwise_xor(row, word, out=row)

    def box(self, table: tuple[int, ...]) -> None:
        formula, every = _formula(table), self._all
        for left, right, out in formula.products:
            np.bitwise_and(every[left], every[right], out=every[out])
        for left, right, out in formula.sums:
            np.bitwise_xor(every[left], every[right], out=every[out])
        made = [every[register] for register, _ in formula.outputs]
        for row, (_, inverted) in zip(made, formula.outputs, strict=True):
            if inverted:
                np.invert(row, out=row)
        # The rows change their places, not their content.
        for place, row in zip((1, 2, 4, 8), made, strict=True):
            here = next(index for index, there in enumerate(every) if there is row)
            every[place], every[here] = every[here], every[place]

    def _turn(self, row: Rows, by: int) -> None:
        np.right_shift(row, 32 - by, out=self._spare)
        np.left_shift(row, by, out=row)
        np.bitwise_or(row, self._spare, out=row)

    def _add(self, row: Rows, *others: Rows, shifted: tuple[Rows, int] | None = None) -> None:
        for other in others:
            np.bitwise_xor(row, other, out=row)
        if shifted is not None:
            np.left_shift(*shifted, out=self._spare)
            np.bitwise_xor(row, self._spare, out=row)

    def spread(self) -> None:
        """The linear step between two rounds."""
        zero, one, two, three = self._in()
        self._turn(zero, 13)
        self._turn(two, 3)
        self._add(one, zero, two)
        self._add(three, two, shifted=(zero, 3))
        self._turn(one, 1)
        self._turn(three, 7)
        self._add(zero, one, three)
        self._add(two, three, shifted=(one, 7))
        self._turn(zero, 5)
        self._turn(two, 22)

    def gather(self) -> None:
        """`spread`, back."""
        zero, one, two, three = self._in()
        self._turn(two, 10)
        self._turn(zero, 27)
        self._add(two, three, shifted=(one, 7))
        self._add(zero, one, three)
        self._turn(three, 25)
        self._turn(one, 31)
        self._add(three, two, shifted=(zero, 3))
        self._add(one, zero, two)
        self._turn(two, 29)
        self._turn(zero, 19)
