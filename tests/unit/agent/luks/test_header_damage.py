"""Whole containers with single bytes changed: they open with their own key, or are refused by rule; nothing else."""

from __future__ import annotations

import json
import os
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.base.errors import BrickyardError
from agent.luks import header, slots
from agent.luks.container import create, reveal
from agent.luks.errors import HeaderRefused, WrongSecret
from agent.luks.model import Format, KdfLimits, Secret, passphrase
from agent.luks.unlock import unlock
from agent.luks.window import whole_file

SECRET, OTHER = Secret("passphrase", b"the key"), Secret("passphrase", b"another")
# A changed byte may ask for many iterations: so few are allowed that a test takes no time.
LIMITS = KdfLimits(slot_iterations=3000, total_iterations=12_000, memory_bytes=1 << 20)
MiB = 1 << 20


@cache
def whole(kind: Any) -> tuple[bytes, bytes]:
    """The beginning of a container, and its master key."""
    fd = os.memfd_create("container")
    os.ftruncate(fd, 18 * MiB)
    made = create(fd, Format(kind), SECRET, iterations=1000)
    reveal(fd, Format(kind))
    head = os.pread(fd, MiB, 0)
    os.close(fd)
    return head, made.master_key


def opened(head: bytes) -> bytes:
    fd = os.memfd_create("damaged")
    try:
        os.write(fd, head)
        os.ftruncate(fd, 18 * MiB)
        window = whole_file(fd)
        return unlock(window, header.read(window, LIMITS), passphrase(SECRET)).master_key
    finally:
        os.close(fd)


PLACES = {
    # the header and its slots; the key material that the open slot lies in
    "luks1": st.integers(0, 591) | st.integers(4096, 4096 + 255_999),
    # both copies of the metadata; the key material
    "luks2": st.integers(0, 1500) | st.integers(4096, 5300) | st.integers(16384, 18000) | st.integers(32768, 288_767),
}


@pytest.mark.parametrize("kind", ["luks1", "luks2"])
def test_a_changed_byte_never_gives_another_key(kind: str) -> None:
    head, key = whole(kind)
    assert opened(head) == key

    @settings(max_examples=150, deadline=None)
    @given(st.lists(st.tuples(PLACES[kind], st.integers(0, 255)), min_size=1, max_size=3))
    def check(flips: list[tuple[int, int]]) -> None:
        data = bytearray(head)
        for at, value in flips:
            data[at] = value
        try:
            found = opened(bytes(data))
        except (HeaderRefused, WrongSecret):
            return
        assert found == key

    check()


@pytest.mark.parametrize("copy", [0, 16384])
def test_one_damaged_copy_of_the_metadata_is_healed_by_the_next_change(copy: int) -> None:
    head, key = whole("luks2")
    fd = os.memfd_create("damaged")
    os.write(fd, head)
    os.ftruncate(fd, 18 * MiB)
    os.pwrite(fd, b"torn", copy + 4200)
    slots.rekey(fd, SECRET, OTHER, iterations=1000)
    window = whole_file(fd)
    assert unlock(window, header.read(window), passphrase(OTHER)).master_key == key
    assert slots.newest(window).generation > 1
    os.pwrite(fd, b"torn", 4200)
    slots.rekey(fd, OTHER, SECRET, iterations=1000)
    assert unlock(window, header.read(window), passphrase(SECRET)).master_key == key
    for at in (0, 16384):
        os.pwrite(fd, b"torn", at + 4200)
    with pytest.raises(BrickyardError):
        slots.rekey(fd, SECRET, OTHER, iterations=1000)
    os.close(fd)


def test_metadata_that_changed_with_its_checksum_is_checked_again() -> None:
    """What a parser believes has to be in the tree, not only whole."""
    from dataclasses import replace

    from agent.luks import luks2, write2

    head, _ = whole("luks2")
    fd = os.memfd_create("changed")
    os.write(fd, head)
    os.ftruncate(fd, 18 * MiB)
    good = luks2.metadata(whole_file(fd))
    changes = [("tokens", {"0": {"type": "x", "keyslots": []}}), ("keyslots", {}), ("digests", {}), ("segments", {})]
    for key, value in changes:
        tree = json.loads(json.dumps(good.tree)) | {key: value}
        write2.store(fd, replace(good, tree=tree))
        with pytest.raises(HeaderRefused):
            header.read(whole_file(fd))
        with pytest.raises(HeaderRefused):
            slots.rekey(fd, SECRET, OTHER, iterations=1000)
    write2.store(fd, good)
    assert header.read(whole_file(fd)).uuid == good.uuid
    os.close(fd)
