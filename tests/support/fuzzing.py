"""A small fuzzer for readers of what strangers wrote: an input that makes new lines of the code run is kept and changed
further, so that it gets past checks that no input by chance would pass."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

_NUMBERS = (0, 1, 7, 0x7F, 0x80, 0xFF, 0x1000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, (1 << 63) - 1, (1 << 64) - 1)
_WORDS = (b"0", b"1", b"-1", b"4096", b"18446744073709551615", b"1e9", b"null", b"[]", b"{}", b'""', b"true", b'"0"')
Change = Callable[[random.Random, bytearray], None]


def anything(chance: random.Random, data: bytearray) -> None:
    """One change of bytes somewhere: flipped, a telling number, a piece copied, zeros."""
    at, size = chance.randrange(len(data)), chance.choice((1, 2, 4, 8))
    match chance.randrange(4):
        case 0:
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            number = chance.choice(_NUMBERS) & ((1 << 8 * size) - 1)
            data[at : at + size] = number.to_bytes(size, chance.choice(("big", "little")))
        case 2:
            other = chance.randrange(len(data))
            data[at : at + size * 8] = data[other : other + size * 8]
        case _:
            data[at : at + size * 8] = bytes(size * 8)


def a_word(chance: random.Random, text: bytes) -> bytes:
    """A JSON text with one of its words, a pair or a character replaced, left out or doubled."""
    if not text:
        return text
    starts = [at for at, one in enumerate(text) if one in b',:{["'] or [0]
    at = chance.choice(starts)
    ends = [end for end in range(at + 1, min(at + 80, len(text))) if text[end] in b',:}]"'] or [at + 1]
    end = chance.choice(ends)
    match chance.randrange(4):
        case 0:
            return text[: at + 1] + chance.choice(_WORDS) + text[end:]
        case 1:
            return text[:at] + text[end:]
        case 2:
            return text[:end] + text[at:end] + text[end:]
        case _:
            return text[:at] + bytes([chance.randrange(256)]) + text[at + 1 :]


def fuzz(
    check: Callable[[bytes], None], seeds: Sequence[bytes], change: Change, *, of: Sequence[Path], rounds: int
) -> int:
    """Call `check`, which raises what is a defect, with changed inputs; how many were worth keeping.

    `of` are the files whose lines count. The same chance each time: what fails, fails again.
    """
    chance, kept, seen = random.Random(4), [bytearray(seed) for seed in seeds], set[tuple[str, int]]()
    files, before = frozenset(map(str, of)), sys.gettrace()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in files:
            return None
        if event == "line":
            seen.add((name, frame.f_lineno))
        return trace

    for number in range(rounds):
        data = bytearray(kept[number] if number < len(seeds) else chance.choice(kept))
        for _ in range(0 if number < len(seeds) else chance.choice((1, 1, 1, 2, 4))):
            change(chance, data)
        known = len(seen)
        sys.settrace(trace)
        try:
            check(bytes(data))
        finally:
            sys.settrace(before)
        if len(seen) > known and number >= len(seeds):
            kept.append(data)
    return len(kept) - len(seeds)
