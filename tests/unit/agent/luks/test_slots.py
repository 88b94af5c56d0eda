"""Key slots of a header whose unused slots lie upon used ones, which the fuzzer found."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from agent.luks import luks1, slots
from agent.luks.container import create, reveal
from agent.luks.errors import KeyArea
from agent.luks.model import Format, MiB, Secret

OLD, NEW = Secret("passphrase", b"the old key"), Secret("passphrase", b"the new key")


@pytest.fixture
def volume() -> Iterator[int]:
    fd = os.memfd_create("volume")
    os.ftruncate(fd, 17 * MiB)
    create(fd, Format("luks1"), OLD, iterations=1000)
    reveal(fd, Format("luks1"))
    yield fd
    os.close(fd)


def move(fd: int, index: int, sector: int) -> None:
    """Let a slot's key material begin at that sector."""
    os.pwrite(fd, sector.to_bytes(4, "big"), luks1.HEAD.size + index * luks1.SLOT.size + 40)


def test_a_slot_that_lies_upon_one_in_use_is_passed_over(volume: int) -> None:
    move(volume, 1, 100)  # slot 0 takes sectors 8 to 507
    slots.rekey(volume, OLD, NEW, iterations=1000)
    assert slots.opens_alone(volume, NEW)


def test_where_every_unused_slot_lies_upon_one_in_use_nothing_is_written(volume: int) -> None:
    for index in range(1, luks1.SLOTS):
        move(volume, index, 8 + index)
    before = os.pread(volume, 2 * MiB, 0)
    for change in (slots.rekey, slots.add):
        with pytest.raises(KeyArea):
            change(volume, OLD, NEW, iterations=1000)
    assert os.pread(volume, 2 * MiB, 0) == before
