"""The reader of qcow2: any layout reads as it was laid, and no damage whatever makes it fail but by rule."""

from __future__ import annotations

import mmap
import os
import random
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.errors import BrickyardError
from agent.copying.files import Side
from agent.copying.model import by_fd
from agent.images import qcow2
from agent.images.disk import Disk
from agent.images.errors import Malformed
from agent.luks.errors import Truncated
from agent.luks.sectors import sectors
from agent.luks.window import whole_file

KEY = bytes(range(64))
COPIED, COMPRESSED = 1 << 63, 1 << 62


@dataclass
class Image:
    """Lays a qcow2 by hand: `what` says for each cluster hole, zero, data or compressed."""

    bits: int
    what: list[str]
    seed: int = 0
    encrypted: bool = False
    clear: bytearray = field(default_factory=bytearray)
    zstd: bool = False
    extended: bool = False
    """With subclusters: each cluster of kind `data` has some that hold data, some zeros, and some nothing."""

    def build(self) -> bytes:
        size, source = 1 << self.bits, random.Random(self.seed)
        words = 2 if self.extended else 1
        per_table = size // (8 * words)
        tables = -(-len(self.what) // per_table)
        first_at, second_at = size, 2 * size
        data_at = second_at + tables * size
        entries, data = [0] * (tables * per_table * words), bytearray()
        places = list(range(sum(kind in {"data", "compressed"} for kind in self.what)))
        if source.random() < 0.5:
            source.shuffle(places)
        data.extend(bytes(len(places) * size))
        for index, kind in enumerate(self.what):
            content = source.randbytes(size) if kind == "data" else bytes([index & 255]) * size
            bitmap = source.getrandbits(32) if self.extended and kind == "data" else 0
            if bitmap:
                content = self._masked(content, bitmap)
            if self.extended and kind == "data" and not bitmap:
                content = bytes(size)
            self.clear += content if kind in {"data", "compressed"} else bytes(size)
            entries[index * words] = COPIED | 1 if kind == "zero" and not self.extended else 0
            if kind in {"data", "compressed"}:
                at = places.pop(0)
                host = data_at + at * size
                stored, entries[index * words] = self._stored(content, kind, host)
                data[at * size : at * size + len(stored)] = stored
            if self.extended:
                zeros = source.getrandbits(32) & ~bitmap if kind != "compressed" else 0
                entries[index * words + 1] = bitmap | zeros << 32
        head = struct.pack(
            ">4sIQIIQIIQQIIQQQQIIQ", b"QFI\xfb", 3, 0, 0, self.bits, len(self.what) * size, 2 if self.encrypted else 0,
            tables, first_at, 0, 0, 0, 0, 8 * self.zstd | 16 * self.extended, 0, 0, 4, 112, self.zstd << 56,
        )  # fmt: skip
        if self.encrypted:
            head += struct.pack(">IIQQ", 0x0537BE77, 16, 0, 512)
        first = b"".join(struct.pack(">Q", COPIED | (second_at + number * size)) for number in range(tables))
        second = struct.pack(f">{len(entries)}Q", *entries)
        return head.ljust(size, b"\0") + first.ljust(size, b"\0") + second + bytes(data)

    def _masked(self, content: bytes, bitmap: int) -> bytes:
        part = len(content) // 32
        pieces = (content[at * part : (at + 1) * part] for at in range(32))
        return b"".join(piece if bitmap >> at & 1 else bytes(part) for at, piece in enumerate(pieces))

    def _stored(self, content: bytes, kind: str, host: int) -> tuple[bytes, int]:
        if kind == "compressed":
            packer = zlib.compressobj(wbits=-12)
            packed = packer.compress(content) + packer.flush()
            if self.zstd:
                packed = zstandard.ZstdCompressor().compress(content)
            sectors_more = (host % 512 + len(packed) - 1) // 512
            return packed, COMPRESSED | sectors_more << (62 - (self.bits - 8)) | host
        buffer = bytearray(content)
        if self.encrypted:
            sectors("aes-xts-plain64", KEY).encrypt(memoryview(buffer), host // 512)
        return bytes(buffer), COPIED | host


@contextmanager
def opened(data: bytes, *, encrypted: bool = False) -> Iterator[Disk]:
    fd = os.memfd_create("image")
    try:
        os.write(fd, data)
        window = whole_file(fd)
        image = qcow2.parse(window)
        side = Side(by_fd(fd), os.O_RDONLY, direct=False)
        try:
            yield Disk(window, side, image, sectors("aes-xts-plain64", KEY) if encrypted else None)
        finally:
            side.close()
    finally:
        os.close(fd)


def read(disk: Disk, offset: int, length: int) -> bytes:
    view = memoryview(mmap.mmap(-1, -(-max(length, 1) // 4096) * 4096))
    return bytes(view[: disk.read(view, offset, length)])


KINDS = st.lists(st.sampled_from(["hole", "zero", "data", "data", "compressed"]), min_size=1, max_size=150)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([9, 10, 12, 16]), KINDS, st.booleans(), st.integers(), st.data())
def test_any_layout_reads_as_it_was_laid(bits: int, what: list[str], encrypted: bool, seed: int, data) -> None:
    if bits == 16:
        what = what[:12]
    image = Image(bits, what, seed, encrypted)
    with opened(image.build(), encrypted=encrypted) as disk:
        assert disk.size() == len(image.clear)
        assert read(disk, 0, disk.size()) == image.clear
        at = data.draw(st.integers(0, disk.size() // 512 - 1)) * 512
        length = data.draw(st.integers(1, (disk.size() - at) // 512)) * 512
        assert read(disk, at, length) == image.clear[at : at + length]
        held = bytearray(disk.size())
        end = at
        for begin, stop in disk.extents(at, at + length):
            assert at <= end <= begin < stop <= at + length
            assert begin == end == at or begin > end or end == at
            held[begin:stop] = image.clear[begin:stop]
            end = stop
        assert held[at : at + length] == image.clear[at : at + length]
        wanted = sum(kind in {"data", "compressed"} for kind in what) << bits
        assert sum(stop - begin for begin, stop in disk.extents(0, disk.size())) == wanted


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda entry: entry | 2, Malformed),
        (lambda entry: entry | 1 << 57, Malformed),
        (lambda entry: entry + 512, Malformed),
        (lambda entry: COPIED | 1 << 40, Truncated),
        (lambda entry: COMPRESSED | 1 << 30, Truncated),
    ],
)
def test_entries_are_checked_when_they_are_used(change, kind: type[BrickyardError]) -> None:
    data = bytearray(Image(12, ["hole", "data"]).build())
    at = 2 * 4096 + 8
    (entry,) = struct.unpack_from(">Q", data, at)
    struct.pack_into(">Q", data, at, change(entry))
    with opened(bytes(data)) as disk:
        assert read(disk, 0, 4096) == bytes(4096)
        with pytest.raises(kind):
            read(disk, 4096, 4096)


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_compressed_cluster_unpacks_to_its_own_size_and_no_further(encrypted: bool) -> None:
    """A bomb: a piece that would unpack to far more than a cluster, and one that gives less."""
    packer = zlib.compressobj(wbits=-12)
    bomb = packer.compress(bytes(range(256)) * 16 * 4096) + packer.flush()
    image = Image(16, ["data", "compressed"], encrypted=encrypted)
    data = bytearray(image.build())
    at = 2 * 65536 + 8
    (entry,) = struct.unpack_from(">Q", data, at)
    host = entry & ((1 << 54) - 1)
    data[host : host + len(bomb)] = bomb
    struct.pack_into(">Q", data, at, COMPRESSED | (len(bomb) - 1) // 512 << 54 | host)
    with opened(bytes(data), encrypted=encrypted) as disk:
        assert read(disk, 0, 2 * 65536) == image.clear[:65536] + bytes(range(256)) * 256
    data[host : host + 65536] = zlib.compressobj(wbits=-12).flush().ljust(65536, b"\0")
    with opened(bytes(data), encrypted=encrypted) as disk, pytest.raises(Truncated):
        read(disk, 65536, 512)


def test_the_last_cluster_may_reach_over_the_end_of_the_file() -> None:
    image = Image(12, ["hole", "data"])
    data = image.build()[:-1024]
    with opened(data) as disk:
        assert read(disk, 4096, 4096) == image.clear[4096:-1024] + bytes(1024)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([14, 16]), KINDS, st.booleans(), st.booleans(), st.integers())
def test_any_layout_with_subclusters(bits: int, what: list[str], encrypted: bool, zstd: bool, seed: int) -> None:
    image = Image(bits, what[:10], seed, encrypted, zstd=zstd, extended=True)
    with opened(image.build(), encrypted=encrypted) as disk:
        assert read(disk, 0, disk.size()) == image.clear
        found = bytearray(disk.size())
        for begin, stop in disk.extents(0, disk.size()):
            found[begin:stop] = read(disk, begin, stop - begin)
        assert found == image.clear
        at = (1 << bits) // 32 * 3 % disk.size()
        ends = [stop for pair in disk.extents(at, disk.size()) for stop in pair]
        assert ends == sorted(ends)
        assert not ends or ends[0] >= at


def test_subclusters_that_lie() -> None:
    data = bytearray(Image(14, ["data", "hole"], extended=True).build())
    good = data[2 << 14 : (2 << 14) + 16]
    for first, bitmap in ((0, 1), (None, 1 | 1 << 32), (COMPRESSED | 3 << 14, 1), (COPIED | 1, 1)):
        entry = struct.unpack(">Q", good[:8])[0] if first is None else first
        struct.pack_into(">QQ", data, 2 << 14, entry, bitmap)
        with opened(bytes(data)) as disk, pytest.raises(Malformed):
            read(disk, 0, 512)


def test_a_frame_that_unpacks_to_more_or_less_than_a_cluster() -> None:
    for content, fits in ((bytes(4096), True), (bytes(1 << 28), True), (bytes(100), False), (b"", False)):
        image = Image(12, ["compressed"], zstd=True)
        data = bytearray(image.build())
        packed = zstandard.ZstdCompressor().compress(content)
        data[3 * 4096 :] = packed.ljust(65536, b"\0")
        struct.pack_into(">Q", data, 2 * 4096, COMPRESSED | (len(packed) // 512) << 58 | 3 * 4096)
        with opened(bytes(data)) as disk:
            if fits:
                assert read(disk, 0, 4096) == content[:4096]
                continue
            with pytest.raises(Truncated):
                read(disk, 0, 4096)


GOOD = Image(9, ["data", "hole", "zero", "compressed"] * 40, seed=3).build()


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3 * 512 + 1300), st.integers(0, 255)), min_size=1, max_size=6), st.booleans())
def test_any_damage_is_read_or_refused_by_rule(flips: list[tuple[int, int]], cut: bool) -> None:
    data = bytearray(GOOD)
    for at, value in flips:
        data[at] = value
    if cut:
        del data[flips[0][0] + 512 :]
    try:
        with opened(bytes(data)) as disk:
            size = min(disk.size(), 1 << 20)
            assert len(read(disk, 0, size)) == size
            sum(1 for _, pair in zip(range(1000), disk.extents(0, size), strict=False) for _ in pair)
    except BrickyardError:
        return
