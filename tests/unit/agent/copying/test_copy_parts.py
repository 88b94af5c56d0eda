"""Parts of the copy engine: ranges and pieces, the rate limit, the form of errors."""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.copying.errors import CopyFailed, CopyRefused, DestinationFull, translated
from agent.copying.extents import data_bytes, pieces
from agent.copying.files import Side
from agent.copying.model import ALIGN, CopyOptions, by_path
from agent.copying.throttle import Throttle, limited
from agent.copying.work import _room


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    path = tmp_path_factory.mktemp("sparse") / "file"
    with path.open("wb") as out:
        out.truncate(1 << 20)
        for block in (0, 1, 7, 100, 255):
            out.seek(block * ALIGN)
            out.write(b"x" * ALIGN)
    side = Side(by_path(path), os.O_RDONLY, direct=False)
    yield side
    side.close()


def test_extents_are_the_written_ranges(sparse):
    found = list(sparse.extents(0, 1 << 20))
    assert found == [(0, 2 * ALIGN), (7 * ALIGN, 8 * ALIGN), (100 * ALIGN, 101 * ALIGN), (255 * ALIGN, 256 * ALIGN)]
    assert data_bytes(sparse, 0, 1 << 20) == 5 * ALIGN
    assert list(sparse.extents(0, 100)) == [(0, 100)]
    assert list(sparse.extents(20 * ALIGN, 50 * ALIGN)) == []


@pytest.mark.parametrize("whence", [os.SEEK_DATA, os.SEEK_HOLE])
def test_what_fails_to_tell_its_holes_is_one_range(sparse, monkeypatch, whence):
    """As files on SMB with several ranges of data, from a Samba that has no room to name them all."""
    real = os.lseek

    def lseek(fd, position, how):
        if how == whence:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, position, how)

    monkeypatch.setattr(os, "lseek", lseek)
    assert list(sparse.extents(0, 1 << 20)) == [(0, 1 << 20)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 255), st.integers(0, 1 << 20), st.tuples(st.integers(0, 300), st.integers(1, 40)), st.booleans())
def test_pieces_cover_once_and_in_order(sparse, start_block, source_size, extra, write_zeros):
    more, blocks = extra
    start, dest_size = start_block * ALIGN, source_size + more * ALIGN
    found = list(pieces(sparse, start, source_size, dest_size, length=blocks * ALIGN, write_zeros=write_zeros))
    position = start
    for piece in found:
        assert 0 < piece.length <= blocks * ALIGN
        assert piece.offset >= position
        if write_zeros:
            assert piece.offset == position
        position = piece.end
    if write_zeros and dest_size > start:
        assert position == dest_size
    assert sum(piece.length for piece in found if piece.data) == data_bytes(sparse, start, source_size)


def test_rate_limit_holds_over_workers():
    throttle, stop, rate = Throttle(10_000_000), threading.Event(), 10_000_000
    amount, each = 50_000, 40

    def work() -> None:
        for _ in range(each):
            throttle.wait(amount, stop)

    before = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = 2 * each * amount / rate
    assert time.monotonic() - before >= wanted * 0.7


def test_copies_that_share_a_limit_have_it_together_and_who_is_alone_has_it_whole() -> None:
    """In bytes that may pass, not in seconds of this machine: what each has reserved says when it goes on."""
    budget = Throttle(1000)
    one, two = CopyOptions(rate_limit=800).within(budget).throttle(), CopyOptions().within(budget).throttle()
    begun = time.monotonic()
    ends = [max(each._reserved(100) for each in (way, *way._shared)) - begun for way in (one, two) * 10]
    assert ends == sorted(ends)
    assert ends[-1] >= 1.9, "2000 bytes of both, 1000 a second, less what it may catch up"
    alone = [max(each._reserved(100) for each in (one, *one._shared)) - begun for _ in range(10)]
    assert 0.9 <= alone[-1] - ends[-1] <= 1.1


def test_limits_of_a_copy_are_all_kept_and_its_pieces_fit_the_least() -> None:
    budget = Throttle(1_000_000)
    options = CopyOptions(rate_limit=50_000_000).within(budget).within(budget).within(Throttle(None))
    assert options.budgets == (budget,)
    assert options.slowest() == 1_000_000
    assert options.piece_size() == CopyOptions(rate_limit=1_000_000).piece_size()
    assert CopyOptions().slowest() is None


async def test_a_stream_passes_within_its_limits() -> None:
    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 4000

    begun = time.monotonic()
    passed = [block async for block in limited(blocks(), CopyOptions().within(Throttle(100_000)).throttle())]
    assert len(passed) == 10
    assert time.monotonic() - begun >= 0.29, "40000 bytes, 100000 a second, less what it may catch up"
    assert [block async for block in limited(blocks(), Throttle(None))] == passed


def test_a_waiting_worker_is_woken_by_stop():
    throttle, stop = Throttle(1), threading.Event()
    threading.Timer(0.1, stop.set).start()
    before = time.monotonic()
    assert not throttle.wait(1000, stop)
    assert time.monotonic() - before < 60


def test_pieces_shrink_with_the_rate():
    assert CopyOptions().piece_size() == 2 << 20
    assert CopyOptions(rate_limit=1_000_000).piece_size() == 16 * ALIGN
    assert CopyOptions(rate_limit=8_000_000).piece_size() % ALIGN == 0


def test_errors_name_no_path():
    for number, kind in ((errno.ENOSPC, DestinationFull), (errno.EACCES, CopyRefused), (errno.EIO, CopyFailed)):
        error = translated(OSError(number, os.strerror(number), "/secret/place"), "destination")
        assert type(error) is kind
        assert "/secret" not in str(error) + str(error.to_body())
    assert type(translated(OSError(errno.ENOSPC, "x"), "source")) is CopyFailed


@pytest.mark.parametrize("size", [16 * ALIGN, (1 << 20) + 1, 2 << 20, 4 << 20])
def test_memory_of_a_worker_is_whole_huge_pages_is_not_dumped_and_not_inherited(size):
    room = _room(size)
    assert len(room) == -(-size // ALIGN) * ALIGN
    room[:] = b"x" * len(room)
    address = ctypes.addressof(ctypes.c_char.from_buffer(room))
    assert address % (2 << 20) == 0
    flags, inside = "", False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= address < end
        elif inside and first == "VmFlags:":
            flags = line
    assert {"dd", "dc"} <= set(flags.split())
    assert "hg" in flags.split() or not Path("/sys/kernel/mm/transparent_hugepage").exists()
