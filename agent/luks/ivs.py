"""How the sectors of a disk get their IVs: by their number, in the ways that dm-crypt knows."""

from __future__ import annotations

import numpy as np

from agent.base.ciphers import Spec
from agent.luks import hashes
from agent.luks.blocks import WORD, Words, block, turned

_LOW = WORD.type(0xFFFFFFFF)


class Ivs:
    """The IVs of a container's sectors of `size` bytes; may be used by many threads."""

    def __init__(self, spec: Spec, key: bytes, size: int) -> None:
        self._iv, self._step, self._width, self._block = spec.iv, size // 512, spec.block // 8, spec.block
        # ESSIV: the number is encrypted by the cipher itself, under the hash of its key.
        self._essiv = block(spec.algorithm, hashes.digest(spec.hash, key)) if spec.iv == "essiv" else None

    def of(self, first: int, count: int) -> Words:
        """One row for each of `count` sectors, the first of which has the number `first`: the words of a block."""
        made = np.zeros((count, self._width), WORD)
        if self._iv == "null":
            return made
        number = np.arange(first, first + count * self._step, self._step, dtype=WORD)
        if self._iv == "plain":
            number &= _LOW
        elif self._iv == "benbi":
            number = number * WORD.type(512 // self._block) + WORD.type(1)
        if self._iv in ("plain64be", "benbi"):
            made[:, -1] = number.byteswap()
        else:
            made[:, 0] = number
        return made if self._essiv is None else turned(self._essiv.encryptor(), made)
