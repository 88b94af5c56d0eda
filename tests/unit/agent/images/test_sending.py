"""What is sent of a volume: its bytes, whatever the file system knows of its holes."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.images import sending
from agent.images.sending import SEGMENT, stream

KiB = 1 << 10


@given(parts=st.lists(st.tuples(st.booleans(), st.integers(1, 96)), max_size=6), tail=st.integers(0, 5000))
def test_holes_and_data_arrive_as_they_lie_there(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[bool, int]], tail: int
) -> None:
    path, size = tmp_path_factory.getbasetemp() / "sent", 0
    with path.open("w+b") as file:
        for is_data, kib in parts:
            if is_data:
                file.seek(size)
                file.write(os.urandom(kib * KiB))
            size += kib * KiB
        size += tail
        file.truncate(size)
        file.flush()
        plain = list(stream(file.fileno(), size, compress=False))
        packed = b"".join(data for _, data in stream(file.fileno(), size, compress=True))
        again = b"".join(data for _, data in stream(file.fileno(), size, compress=True))
    whole = path.read_bytes()
    assert b"".join(data for _, data in plain) == whole
    assert [done for done, _ in plain] == sorted({done for done, _ in plain})
    assert (plain[-1][0] if plain else 0) == size
    assert zlib.decompress(packed, 31) == whole
    assert packed == again


def test_a_hole_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "sparse", []
    with path.open("wb") as file:
        file.truncate(40 * SEGMENT)
        file.seek(20 * SEGMENT)
        file.write(b"here")
    real = os.pread

    def counted(fd: int, length: int, offset: int) -> bytes:
        read.append(offset)
        return real(fd, length, offset)

    monkeypatch.setattr(sending.os, "pread", counted)
    with path.open("rb") as file:
        assert sum(len(data) for _, data in stream(file.fileno(), 40 * SEGMENT, compress=False)) == 40 * SEGMENT
        assert read == [20 * SEGMENT]
        with pytest.raises(OSError, match="shorter"):
            list(stream(file.fileno(), 41 * SEGMENT, compress=False))
