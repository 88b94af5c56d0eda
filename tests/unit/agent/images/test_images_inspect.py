"""Images are refused by rule, each rule with its own code, before any tool opens them."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.errors import BrickyardError
from agent.images import errors, magic
from agent.images.inspect import Declared, Limits, declared_format, inspect
from tests.support.crafted_qcow2 import extension, qcow2_bytes

MiB = 1 << 20
RAW, QCOW2, ENCRYPTED = Declared("raw"), Declared("qcow2"), Declared("qcow2", "bare", True)


class Files:
    def __init__(self) -> None:
        self._fds: list[int] = []

    def __call__(self, data: bytes, length: int | None = None) -> int:
        fd = os.memfd_create("image")
        self._fds.append(fd)
        os.write(fd, data)
        if length is not None:
            os.ftruncate(fd, length)
        return fd

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def file() -> Iterator[Files]:
    files = Files()
    yield files
    files.close()


def test_good_qcow2(file: Files) -> None:
    found = inspect(file(qcow2_bytes(first=b"hello")), QCOW2)
    assert (found.format, found.virtual_size, found.encrypted) == ("qcow2", 64 * MiB, False)
    assert inspect(file(qcow2_bytes(version=2)), QCOW2).format == "qcow2"
    assert inspect(file(qcow2_bytes(extension(0x6803F857, b"names"))), QCOW2).format == "qcow2"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": 1}, "image.version"),
        ({"version": 4}, "image.version"),
        ({"backing": 512, "backing_len": 11}, "image.backing-file"),
        ({"backing_len": 11}, "image.backing-file"),
        ({"extensions": extension(0xE2792ACA, b"raw")}, "image.backing-file"),
        ({"features": 4}, "image.data-file"),
        ({"autoclear": 2}, "image.data-file"),
        ({"extensions": extension(0x44415441, b"/etc/shadow")}, "image.data-file"),
        ({"features": 1 << 5}, "image.unknown-feature"),
        ({"features": 1 << 63}, "image.unknown-feature"),
        ({"extensions": extension(0x12345678, b"?")}, "image.unknown-feature"),
        ({"features": 2}, "image.corrupt"),
        ({"crypt": 1}, "image.legacy-encryption"),
        ({"crypt": 3}, "image.unknown-feature"),
        ({"crypt": 2}, "image.malformed"),
        ({"snapshots": 1}, "image.internal-snapshots"),
        ({"extensions": extension(0x23852875, bytes(24))}, "image.bitmaps"),
        ({"extensions": extension(0x0537BE77, bytes(16))}, "image.malformed"),
        ({"extensions": struct.pack(">II", 0x6803F857, 1 << 20)}, "image.malformed"),
        ({"extensions": extension(0x6803F857, b"") * 100}, "image.malformed"),
        ({"bits": 8}, "image.malformed"),
        ({"bits": 30}, "image.malformed"),
        ({"size": 1 << 61}, "image.malformed"),
        ({"size": 1000}, "image.malformed"),
        ({"l1_entries": 1 << 30}, "image.malformed"),
        ({"l1_entries": 0}, "image.malformed"),
        ({"l1": 65537}, "image.malformed"),
        ({"l1": 1 << 40}, "image.truncated"),
        ({"refcount_order": 7}, "image.malformed"),
        ({"header_length": 100}, "image.malformed"),
        ({"header_length": 1 << 31}, "image.malformed"),
        ({"features": 8}, "image.compression"),
        ({"first": qcow2_bytes()[:4096]}, "image.nested-format"),
        ({"first": b"LUKS\xba\xbe\0\1"}, "image.nested-format"),
        ({"first": b"# Disk DescriptorFile\nversion=1\n"}, "image.nested-format"),
    ],
)
def test_qcow2_rules(file: Files, changes: dict[str, Any], code: str) -> None:
    with pytest.raises(BrickyardError) as caught:
        inspect(file(qcow2_bytes(**changes)), QCOW2)
    assert caught.value.code == code
    assert "shadow" not in str(caught.value)
    assert caught.value.remedy


def test_nested_format_is_found_in_a_compressed_cluster(file: Files) -> None:
    packer = zlib.compressobj(wbits=-12)
    packed = packer.compress(b"QFI\xfb" + bytes(65532)) + packer.flush()
    entry = 1 << 62 | (len(packed) // 512) << 54 | 3 * 65536
    with pytest.raises(errors.NestedFormat):
        inspect(file(qcow2_bytes(first=packed, entry=entry)), QCOW2)


def test_nested_format_is_found_in_extended_tables(file: Files) -> None:
    data = bytearray(qcow2_bytes(features=16, first=b"QFI\xfb"))
    data[2 * 65536 + 8 : 2 * 65536 + 16] = struct.pack(">Q", 1)
    with pytest.raises(errors.NestedFormat):
        inspect(file(bytes(data)), QCOW2)


def test_size_above_the_volume_is_refused(file: Files) -> None:
    image = file(qcow2_bytes())
    with pytest.raises(errors.ImageSize) as caught:
        inspect(image, QCOW2, Limits(max_virtual=63 * MiB))
    assert caught.value.code == "image.size"
    assert "1 GiB" in caught.value.remedy


def test_encryption_must_be_as_declared(file: Files) -> None:
    with pytest.raises(errors.NotEncrypted):
        inspect(file(qcow2_bytes()), ENCRYPTED)
    with pytest.raises(errors.UndeclaredEncryption):
        inspect(file(b"LUKS\xba\xbe\0\1", MiB), RAW)
    with pytest.raises(BrickyardError) as caught:
        inspect(file(bytes(MiB)), Declared("raw", "luks", True))
    assert caught.value.code == "image.luks-missing"


@pytest.mark.parametrize(
    "head",
    [b"QFI\xfb", b"QED\0", b"KDMV", b"COWD", b"vhdxfile", b"conectix", b"WithoutFreeSpace", b"Bochs Virtual HD Image",
     b"# Disk DescriptorFile\n", b"\n# a comment\n version = 1\n", b"version=3\n", bytes(64) + b"\x7f\x10\xda\xbe"],
)  # fmt: skip
def test_raw_that_is_something_else(file: Files, head: bytes) -> None:
    with pytest.raises(errors.FormatMismatch):
        inspect(file(head, MiB), RAW)


def test_raw_with_a_footer(file: Files) -> None:
    for footer in (b"conectix", b"koly"):
        with pytest.raises(errors.FormatMismatch):
            inspect(file(bytes(MiB - 512) + footer.ljust(512, b"\0")), RAW)


def test_polyglots(file: Files) -> None:
    with pytest.raises(errors.Polyglot):
        inspect(file(b"KDMV" + bytes(60) + b"\x7f\x10\xda\xbe", MiB), RAW)
    image = bytearray(qcow2_bytes(version=2))
    image[64:68] = b"\x7f\x10\xda\xbe"
    with pytest.raises(errors.Polyglot):
        inspect(file(bytes(image)), QCOW2)


def test_a_bootable_disk_is_raw(file: Files) -> None:
    disk = bytearray(MiB)
    disk[:3], disk[510:512], disk[512:520] = b"\xeb\x63\x90", b"\x55\xaa", b"EFI PART"
    disk[0x8001:0x8006] = b"CD001"
    assert inspect(file(bytes(disk)), RAW).virtual_size == MiB
    assert inspect(file(b"x" * 1000), RAW).virtual_size == 1024


def test_qcow2_that_is_raw(file: Files) -> None:
    for data in (bytes(MiB), b"KDMV" + bytes(MiB)):
        with pytest.raises(errors.FormatMismatch):
            inspect(file(data), QCOW2)
    with pytest.raises(errors.ImageEmpty):
        inspect(file(b""), QCOW2)


@pytest.mark.parametrize(
    ("disk", "container"),
    [("vmdk", "bare"), ("vhd", "bare"), ("iso", "bare"), ("qcow2", "ova"), ("", ""), ("raw", "ova")],
)
def test_other_formats(disk: str, container: str) -> None:
    with pytest.raises(errors.FormatUnsupported) as caught:
        declared_format(Declared(disk, container))
    assert caught.value.code == "image.format-unsupported"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", qcow2_bytes()[:104], b"LUKS\xba\xbe\0\1"]),
       st.sampled_from([RAW, QCOW2, ENCRYPTED, Declared("raw", "luks", True)]))  # fmt: skip
def test_any_bytes_are_accepted_or_refused(tail: bytes, front: bytes, declared: Declared) -> None:
    _inspect_anything(front + tail, declared)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 120) | st.integers(65536, 65544) | st.integers(131072, 131080), st.binary(min_size=1, max_size=8),
       st.sampled_from([QCOW2, ENCRYPTED]))  # fmt: skip
def test_any_change_of_a_good_qcow2_is_accepted_or_refused(at: int, patch: bytes, declared: Declared) -> None:
    data = qcow2_bytes(first=b"data")
    _inspect_anything(data[:at] + patch + data[at + len(patch) :], declared)


@given(st.binary(max_size=600))
def test_signatures_never_fail(data: bytes) -> None:
    magic.head_formats(data)
    magic.tail_formats(data)


def _inspect_anything(data: bytes, declared: Declared) -> None:
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, data)
        try:
            found = inspect(fd, declared)
        except BrickyardError:
            return
        assert found.virtual_size >= 0
    finally:
        os.close(fd)
