"""XTS over thousands of sectors with two calls of the cipher: one for the tweaks' seeds, one for the data.

Within a sector the tweak of block j is its seed times x^j in GF(2^128). That product is a shift and the
reduction of the bits that fall out, so numpy makes the tweaks of all sectors side by side, 32 at a time.
"""

from __future__ import annotations

import numpy as np

from agent.base.ciphers import Spec
from agent.luks.blocks import ROUND_BYTES, WORD, Scratch, Turn, Words, block, rounds, turned, words
from agent.luks.ivs import Ivs

_STRIDE = 32
_ONE, _FIVE = WORD.type(1), WORD.type(5)
_TOP = WORD.type(64 - _STRIDE)
_UP = np.arange(_STRIDE, dtype=WORD)
_DOWN = (63 - _UP).astype(WORD)


class Portable:
    """See `sectors.Sectors`."""

    def __init__(self, spec: Spec, key: bytes, size: int) -> None:
        half = len(key) // 2
        self._data, self._tweak = block(spec.algorithm, key[:half]), block(spec.algorithm, key[half:])
        self._ivs, self._size = Ivs(spec, key, size), size

    def encrypt(self, view: memoryview, first: int) -> None:
        self._pass(self._data.encryptor(), view, first)

    def decrypt(self, view: memoryview, first: int) -> None:
        self._pass(self._data.decryptor(), view, first)

    def _pass(self, turn: Turn, view: memoryview, first: int) -> None:
        room, tweak = min(view.nbytes, ROUND_BYTES) // 8, self._tweak.encryptor()
        scratch, tweaks = Scratch(room), _Tweaks(self._size, room)
        for data, number in rounds(view, self._size, first):
            mask = tweaks.of(turned(tweak, self._ivs.of(number, data.nbytes // self._size)))
            np.bitwise_xor(data, mask, out=scratch.plain[: data.size])
            np.bitwise_xor(scratch.turn(turn, data.size), mask, out=data)


class _Tweaks:
    """Makes the tweaks of a round; its arrays are used again for the next one."""

    def __init__(self, size: int, room: int) -> None:
        self._seeds = size // 16 // _STRIDE
        self._mask, self._low, self._carry = words(room), words(room // 2), words(room // 2)

    def of(self, seeds: Words) -> Words:
        """The tweaks of the sectors with these seeds as one row of words, two for each block."""
        count = len(seeds)
        lows, highs = words(count * self._seeds), words(count * self._seeds)
        low, high = seeds[:, 0], seeds[:, 1]
        for index in range(self._seeds):
            lows[index :: self._seeds], highs[index :: self._seeds] = low, high
            low, high = _further(low, high)
        return self._spread(lows[:, None], highs[:, None])

    def _spread(self, low: Words, high: Words) -> Words:
        count = low.size * _STRIDE
        made = self._low[:count].reshape(-1, _STRIDE)
        carry = self._carry[:count].reshape(-1, _STRIDE)
        mask = self._mask[: count * 2].reshape(-1, _STRIDE, 2)
        np.right_shift(high >> _ONE, _DOWN, out=carry)
        np.left_shift(low, _UP, out=made)
        for shift in (0, 1, 1, _FIVE):  # x^128 is x^7 + x^2 + x + 1
            if shift:
                np.left_shift(carry, WORD.type(shift), out=carry)
            np.bitwise_xor(made, carry, out=made)
        mask[..., 0] = made
        np.left_shift(high, _UP, out=made)
        np.right_shift(low >> _ONE, _DOWN, out=carry)
        np.bitwise_or(made, carry, out=mask[..., 1])
        return mask.reshape(-1)


def _further(low: Words, high: Words) -> tuple[Words, Words]:
    """Times x^32."""
    up = WORD.type(_STRIDE)
    carry = high >> _TOP
    reduced = carry ^ (carry << _ONE) ^ (carry << WORD.type(2)) ^ (carry << WORD.type(7))
    return (low << up) ^ reduced, (high << up) | (low >> _TOP)
