"""Compressed images: unpacked whole, sparse, bounded, and refused when they are something else."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.errors import BrickyardError
from agent.copying.errors import CopyCancelled
from agent.images.errors import ImageSize, NotCompressed
from agent.images.unpack import room, unpack
from agent.luks.errors import Truncated

MiB = 1 << 20


class Pair:
    """A file to unpack and one to unpack into."""

    def __init__(self) -> None:
        self.fd, self.to = os.memfd_create("packed"), os.memfd_create("clear")

    def __call__(self, packed: bytes, limit: int = 64 * MiB, stop: bool = False) -> bytes:
        os.ftruncate(self.fd, 0)
        os.ftruncate(self.to, 0)
        os.pwrite(self.fd, packed, 0)
        told: list[int] = []
        size = unpack(self.fd, self.to, limit, told.append, lambda: stop)
        assert told[-1] == size
        return os.pread(self.to, limit, 0)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    os.close(made.fd)
    os.close(made.to)


def test_whole_and_sparse(pair: Pair) -> None:
    data = os.urandom(MiB) + bytes(20 * MiB) + b"end" + bytes(100_000)
    assert pair(gzip.compress(data)) == data
    assert os.fstat(pair.to).st_blocks * 512 < 2 * MiB


def test_members_follow_on_and_padding_is_ignored(pair: Pair) -> None:
    assert pair(gzip.compress(b"one") + gzip.compress(b"two") + bytes(1000)) == b"onetwo"


def test_a_bomb_stops_at_the_limit(pair: Pair) -> None:
    bomb = gzip.compress(bytes(200 * MiB))
    with pytest.raises(ImageSize):
        pair(bomb, limit=10 * MiB)
    assert os.fstat(pair.to).st_blocks * 512 < MiB
    assert room(len(bomb), 10 * MiB) == 10 * MiB
    assert len(pair(bomb, limit=200 * MiB)) == 200 * MiB
    assert room(len(bomb), 1 << 40) >= 200 * MiB


@pytest.mark.parametrize("data", [b"", b"text", b"PK\3\4zip", b"\x1f\x8b", b"\x1f\x8b\x08" + bytes(100), bytes(4096)])
def test_something_else(pair: Pair, data: bytes) -> None:
    with pytest.raises((NotCompressed, Truncated)):
        pair(data)


def test_cut_short_and_damaged(pair: Pair) -> None:
    packed = gzip.compress(os.urandom(3 * MiB))
    with pytest.raises(Truncated):
        pair(packed[:-4])
    with pytest.raises(NotCompressed):
        pair(packed[:-8] + bytes(8))
    with pytest.raises(NotCompressed):
        pair(packed + b"rubbish")


def test_cancelled(pair: Pair) -> None:
    with pytest.raises(CopyCancelled):
        pair(gzip.compress(b"a"), stop=True)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4), st.integers(0, 3000))
def test_any_damage_is_unpacked_or_refused(flips: list[tuple[int, int]], cut: int) -> None:
    packed = bytearray(gzip.compress(bytes(range(256)) * 300))
    for at, value in flips:
        packed[at % len(packed)] = value
    made = Pair()
    try:
        assert len(made(bytes(packed[: len(packed) - cut % len(packed)]))) <= 64 * MiB
    except BrickyardError:
        pass
    finally:
        os.close(made.fd)
        os.close(made.to)
