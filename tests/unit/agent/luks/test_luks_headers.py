"""LUKS headers: each rule is refused with its own code, and no bytes whatever make a parser fail otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.errors import BrickyardError
from agent.luks import antiforensic, errors, header, luks1, unlock
from agent.luks.model import (
    Format,
    KdfLimits,
    Secret,
    device_bytes,
    header_bytes,
    iterations_for,
    passphrase,
)
from agent.luks.window import Window, whole_file
from tests.support.crafted_luks import UNUSED, luks1_bytes, luks2_bytes, luks2_tree

FILE_BYTES = 4 << 20
PBKDF2 = {"type": "pbkdf2", "salt": "", "hash": "sha256", "iterations": 1}


@pytest.fixture
def parse(tmp_path: Path) -> Callable[..., Any]:
    def of(data: bytes, length: int = FILE_BYTES, **options: Any) -> Any:
        path = tmp_path / "header"
        path.write_bytes(data)
        os.truncate(path, length)
        with path.open("rb") as file:
            return header.parse(whole_file(file.fileno()), **options)

    return of


def test_good_luks1(parse: Callable[..., Any]) -> None:
    details = parse(luks1_bytes())
    assert (details.version, details.cipher, details.payload_offset) == (1, "aes-xts-plain64", 2 << 20)
    assert details.payload_bytes == 2 << 20
    assert details.slots[0].iterations == 1000


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"magic": b"LUKS??"}, "image.luks-missing"),
        ({"version": 3}, "image.luks-version"),
        ({"payload": 0}, "image.luks-detached"),
        ({"payload": 1 << 20}, "image.luks-segment"),
        ({"cipher": b"cipher_null"}, "image.luks-null-cipher"),
        ({"cipher": b"cipher_null", "mode": b"ecb"}, "image.luks-null-cipher"),
        ({"cipher": b"anubis"}, "image.luks-cipher"),
        ({"mode": b"cbc-plain"}, "image.luks-cipher"),  # no key of 64 bytes
        ({"mode": b"cbc-random", "key_bytes": 32}, "image.luks-cipher"),
        ({"hash": b"crc32c"}, "image.luks-cipher"),
        ({"cipher": b"aes\0evil"}, "image.luks-cipher"),
        ({"cipher": b"\xff\xfe"}, "image.luks-cipher"),
        ({"key_bytes": 1 << 30}, "image.luks-cipher"),
        ({"iterations": 1 << 31}, "image.luks-kdf-limit"),
        ({"digest_iterations": 1 << 31}, "image.luks-kdf-limit"),
        ({"iterations": 0}, "image.luks-key-area"),
        ({"stripes": 0}, "image.luks-key-area"),
        ({"stripes": 1 << 31}, "image.luks-key-area"),
        ({"material": 0}, "image.luks-key-area"),
        ({"material": 4090}, "image.luks-key-area"),
        ({"state": UNUSED}, "image.luks-key-area"),
        ({"state": 7}, "image.luks-key-area"),
    ],
)
def test_luks1_rules(parse: Callable[..., Any], changes: dict[str, Any], code: str) -> None:
    with pytest.raises(errors.HeaderRefused) as caught:
        parse(luks1_bytes(**changes))
    assert caught.value.code == code
    assert "evil" not in str(caught.value)


def test_truncated_luks1(parse: Callable[..., Any]) -> None:
    with pytest.raises(errors.Truncated):
        parse(luks1_bytes(), length=300)


def test_total_cost_of_many_slots_is_limited(parse: Callable[..., Any]) -> None:
    with pytest.raises(errors.KdfLimit):
        parse(luks1_bytes(iterations=600), limits=KdfLimits(slot_iterations=1000, total_iterations=1500))


@pytest.mark.parametrize(("passes", "accepted"), [(6, True), (7, False)])
def test_total_cost_of_many_argon_slots_is_limited(parse: Callable[..., Any], passes: int, accepted: bool) -> None:
    tree = luks2_tree()
    slot = tree["keyslots"]["0"]
    slot["kdf"]["time"] = passes
    tree["keyslots"] = {str(number): slot for number in range(8)}
    tree["digests"]["0"]["keyslots"] = list(tree["keyslots"])
    limits = KdfLimits(argon_passes=16)
    if accepted:
        assert len(parse(luks2_bytes(tree), limits=limits).slots) == 8
        return
    with pytest.raises(errors.KdfLimit):
        parse(luks2_bytes(tree), limits=limits)


def test_good_luks2(parse: Callable[..., Any]) -> None:
    details = parse(luks2_bytes(luks2_tree()))
    assert (details.version, details.payload_offset, details.payload_bytes) == (2, 1 << 20, 3 << 20)
    assert details.slots[0].memory == 1 << 30


def change(tree: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    spot = tree
    for name in parents:
        spot = spot[name]
    spot[last] = value
    return tree


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("tokens.0", {"type": "evil"}, "image.luks-token"),
        ("config.requirements", {"mandatory": ["online-reencrypt"]}, "image.luks-requirements"),
        ("config.json_size", "4096", "image.luks-metadata"),
        ("config.keyslots_size", "99999999999999999999999", "image.luks-metadata"),
        ("keyslots", {}, "image.luks-key-area"),
        ("keyslots", [], "image.luks-metadata"),
        ("keyslots.0.type", "reencrypt", "image.luks-requirements"),
        ("keyslots.0.kdf.memory", 1 << 31, "image.luks-kdf-limit"),
        ("keyslots.0.kdf.time", 1000, "image.luks-kdf-limit"),
        ("keyslots.0.kdf.cpus", 999, "image.luks-kdf-limit"),
        ("keyslots.0.kdf.time", True, "image.luks-metadata"),
        (
            "keyslots.0.kdf",
            {"type": "pbkdf2", "salt": "", "hash": "sha256", "iterations": 1 << 40},
            "image.luks-kdf-limit",
        ),
        ("keyslots.0.kdf", {"type": "pbkdf2", "salt": "", "hash": "crc32c", "iterations": 1}, "image.luks-cipher"),
        ("keyslots.0.kdf.type", "scrypt", "image.luks-requirements"),
        ("keyslots.0.area.offset", "0", "image.luks-key-area"),
        ("keyslots.0.area.size", "99999999", "image.luks-key-area"),
        ("keyslots.0.af.stripes", 100000, "image.luks-key-area"),
        ("segments", {}, "image.luks-segment"),
        ("segments.0.type", "linear", "image.luks-segment"),
        ("segments.0.type", "hw-opal-crypt", "image.luks-integrity"),
        ("segments.0.integrity", {"type": "hmac(sha256)"}, "image.luks-integrity"),
        ("segments.0.encryption", "cipher_null-ecb", "image.luks-null-cipher"),
        ("segments.0.encryption", "aes-cbc-plain", "image.luks-cipher"),
        ("segments.0.encryption", "anubis-xts-plain64", "image.luks-cipher"),
        ("segments.0.offset", "0", "image.luks-detached"),
        ("segments.0.offset", "99999999999", "image.luks-segment"),
        ("segments.0.size", "99999999488", "image.luks-segment"),
        ("segments.0.sector_size", 123, "image.luks-segment"),
        ("segments.0.flags", ["backup-final"], "image.luks-segment"),
        ("digests.0.iterations", 1 << 40, "image.luks-kdf-limit"),
        ("digests.0.type", "other", "image.luks-requirements"),
        ("digests.0.digest", "", "image.luks-metadata"),
        ("digests.0.digest", "?" * 44, "image.luks-metadata"),
        ("digests.0.segments", ["1"], "image.luks-metadata"),
        ("digests.0.segments", "0", "image.luks-metadata"),
        ("digests.0.keyslots", [], "image.luks-key-area"),
        ("keyslots.0.kdf.salt", "x" * 4000, "image.luks-metadata"),
        ("keyslots.0.kdf.memory", 8, "image.luks-key-area"),
        ("keyslots.0.key_size", 63, "image.luks-cipher"),
        ("keyslots.0.area.encryption", "cipher_null-ecb", "image.luks-null-cipher"),
        ("keyslots.0.af.hash", "crc32c", "image.luks-cipher"),
    ],
)
def test_luks2_rules(parse: Callable[..., Any], path: str, value: Any, code: str) -> None:
    with pytest.raises(errors.HeaderRefused) as caught:
        parse(luks2_bytes(change(luks2_tree(), path, value)))
    assert caught.value.code == code


@pytest.mark.parametrize("text", [b"{", b"[]", b"[" * 12000, b'"x"', b"\xff", b"1" * 12000])
def test_luks2_metadata_that_is_no_object(parse: Callable[..., Any], text: bytes) -> None:
    with pytest.raises(errors.MetadataSize):
        parse(luks2_bytes(text))


def test_luks2_binary_rules(parse: Callable[..., Any]) -> None:
    for data in (luks2_bytes(luks2_tree(), damage=True), luks2_bytes(luks2_tree(), size=1 << 40)):
        with pytest.raises(errors.MetadataSize):
            parse(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=700), st.sampled_from([b"", b"LUKS\xba\xbe\0\1", b"LUKS\xba\xbe\0\2"]))
def test_any_bytes_are_accepted_or_refused(tail: bytes, front: bytes) -> None:
    _parse_anything(front + tail)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 591), st.binary(min_size=1, max_size=8))
def test_any_change_of_a_good_header_is_accepted_or_refused(at: int, patch: bytes) -> None:
    data = luks1_bytes()
    _parse_anything((data[:at] + patch + data[at + len(patch) :]).ljust(300000, b"\0"))


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["0", "type", "size", "offset", "kdf"]), inner)
), max_leaves=8)  # fmt: skip
LEAVES = ["keyslots", "keyslots.0", "keyslots.0.kdf", "keyslots.0.area", "segments", "segments.0", "segments.0.size",
          "config.requirements", "digests", "digests.0", "tokens", "config.keyslots_size"]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(LEAVES), JSON)
def test_any_metadata_is_accepted_or_refused(path: str, value: Any) -> None:
    _parse_anything(luks2_bytes(change(luks2_tree(), path, value)))


def _parse_anything(data: bytes) -> None:
    fd = os.memfd_create("fuzz")
    try:
        os.write(fd, data)
        try:
            header.parse(Window(fd, 0, len(data)))
        except BrickyardError:
            return
    finally:
        os.close(fd)


def test_passphrase_rule() -> None:
    assert passphrase(Secret("passphrase", b"pa\xc3\xa4ss")) == b"pa\xc3\xa4ss"
    for kind in ("symmetric", "opaque"):
        assert passphrase(Secret(kind, b"\x01\xff")) == b"01ff"
    for value in (b"", b"x" * 5000):
        with pytest.raises(errors.BadSecret):
            passphrase(Secret("passphrase", value))
    assert "hush" not in repr(Secret("passphrase", b"hush"))


def test_iterations_rule() -> None:
    strong, weak = Secret("symmetric", bytes(32)), Secret("passphrase", b"x")
    assert iterations_for(strong, 500_000, 2_000_000) == 1000
    assert iterations_for(weak, 500_000, 2_000_000) == 500_000
    assert iterations_for(weak, None, 2_000_000) == 2_000_000
    assert iterations_for(Secret("symmetric", bytes(8)), None, 2_000_000) == 2_000_000


def test_sizes() -> None:
    assert header_bytes(Format("luks1")) == 2 << 20
    assert header_bytes(Format("luks2")) == 16 << 20
    assert device_bytes(1 << 30, None) == 1 << 30
    assert device_bytes(1 << 30, Format("luks1")) == (1 << 30) + (2 << 20)


@given(st.binary(min_size=16, max_size=64), st.integers(1, 8), st.sampled_from(["sha1", "sha256", "sha512"]))
def test_merge_undoes_the_split(key: bytes, stripes: int, name: str) -> None:
    made = antiforensic.split(key, stripes, name)
    assert len(made) == stripes * len(key)
    assert antiforensic.merge(made, len(key), stripes, name) == key


def test_wrong_secret(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(luks1_bytes())
    os.truncate(path, FILE_BYTES)
    with path.open("rb") as file:
        window = whole_file(file.fileno())
        with pytest.raises(errors.WrongSecret) as caught:
            unlock.unlock(window, luks1.parse(window), b"hush-hush")
    assert "hush" not in str(caught.value.to_body())
