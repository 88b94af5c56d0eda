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
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.errors import BrickyardError
from agent.copying.files import Side
from agent.copying.model import by_fd
from agent.images import qcow2
from agent.images.disk import Disk, served
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

    def build(self) -> bytes:
        size, source = 1 << self.bits, random.Random(self.seed)
        per_table = size // 8
        tables = -(-len(self.what) // per_table)
        first_at, second_at = size, 2 * size
        data_at = second_at + tables * size
        entries, data = [0] * (tables * per_table), bytearray()
        places = list(range(sum(kind in {"data", "compressed"} for kind in self.what)))
        if source.random() < 0.5:
            source.shuffle(places)
        data.extend(bytes(len(places) * size))
        for index, kind in enumerate(self.what):
            content = source.randbytes(size) if kind == "data" else bytes([index & 255]) * size
            self.clear += content if kind in {"data", "compressed"} else bytes(size)
            entries[index] = COPIED | 1 if kind == "zero" else 0
            if kind in {"data", "compressed"}:
                at = places.pop(0)
                host = data_at + at * size
                stored, entries[index] = self._stored(content, kind, host)
                data[at * size : at * size + len(stored)] = stored
        head = struct.pack(
            ">4sIQIIQIIQQIIQQQQII", b"QFI\xfb", 3, 0, 0, self.bits, len(self.what) * size, 2 if self.encrypted else 0,
            tables, first_at, 0, 0, 0, 0, 0, 0, 0, 4, 104,
        )  # fmt: skip
        if self.encrypted:
            head += struct.pack(">IIQQ", 0x0537BE77, 16, 0, 512)
        first = b"".join(struct.pack(">Q", COPIED | (second_at + number * size)) for number in range(tables))
        second = struct.pack(f">{len(entries)}Q", *entries)
        return head.ljust(size, b"\0") + first.ljust(size, b"\0") + second + bytes(data)

    def _stored(self, content: bytes, kind: str, host: int) -> tuple[bytes, int]:
        if kind == "compressed":
            packer = zlib.compressobj(wbits=-12)
            packed = packer.compress(content) + packer.flush()
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
            if not served(image):
                raise Malformed(rule="the tool's part")
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
    if encrypted:
        what = ["data" if kind == "compressed" else kind for kind in what]
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
        if kind is Truncated and change(entry) & COMPRESSED:
            return  # a compressed cluster outside of the file reads as what zlib makes of nothing
        with pytest.raises(kind):
            read(disk, 4096, 4096)


def test_compressed_clusters_of_an_encrypted_image_are_refused() -> None:
    data = bytearray(Image(12, ["data", "hole"], encrypted=True).build())
    struct.pack_into(">Q", data, 2 * 4096 + 8, COMPRESSED | 4096)
    with opened(bytes(data), encrypted=True) as disk, pytest.raises(Malformed, match="never encrypted"):
        read(disk, 0, 512)


def test_the_last_cluster_may_reach_over_the_end_of_the_file() -> None:
    image = Image(12, ["hole", "data"])
    data = image.build()[:-1024]
    with opened(data) as disk:
        assert read(disk, 4096, 4096) == image.clear[4096:-1024] + bytes(1024)


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
