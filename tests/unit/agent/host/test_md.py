"""Arrays read from a tree as the kernel makes it, and superblocks as mdadm writes them."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.host import md
from tests.unit.agent.host.test_scsi import put

IDENT = "11111111-2222-4333-8444-555555555555"


def block(events: int = 20, roles: tuple[int, ...] = (0, 1), level: int = 1) -> bytes:
    head = struct.pack(
        "<IIII16s32sQiiQII", 0xA92B4EFC, 1, 0, 0, uuid.UUID(IDENT).bytes, b"any:name", 0, level, 0, 1000, 0, 2
    )
    data = bytearray(4096)
    data[: len(head)] = head
    struct.pack_into("<Q", data, 200, events)
    struct.pack_into("<I", data, 220, len(roles))
    struct.pack_into(f"<{len(roles)}H", data, 256, *roles)
    return bytes(data)


def array(sys: Path, name: str, *members: tuple[str, str], state: str = "clean", ident: str = IDENT) -> None:
    put(sys / f"block/{name}/md/uuid", ident)
    put(sys / f"block/{name}/md/array_state", state)
    put(sys / f"block/{name}/md/raid_disks", "2")
    put(sys / f"block/{name}/md/sync_action", "idle")
    put(sys / f"block/{name}/size", "2048")
    for disk, told in members:
        put(sys / f"block/{name}/md/dev-{disk}/state", told)


def test_a_degraded_mirror(tmp_path: Path) -> None:
    array(tmp_path, "md127", ("nvme0n1", "in_sync,failfast"), ("nvme1n1", "faulty,failfast"))
    array(tmp_path, "md5", ("sda1", ""), state="inactive")
    found = md.over({"nvme1n1"}, tmp_path)
    assert found is not None
    assert (found.name, found.active, found.wanted, found.size) == ("md127", True, 2, 1 << 20)
    assert [(one.name, one.good) for one in found.members] == [("nvme0n1", True), ("nvme1n1", False)]
    assert not md.arrays(tmp_path)[1].active
    assert md.over({"nvme7n1"}, tmp_path) is None


def test_one_that_lost_all_its_legs_at_once_is_broken(tmp_path: Path) -> None:
    array(tmp_path, "md126", ("nvme0n1", "in_sync"))
    array(tmp_path, "md127", ("nvme1n1", "in_sync"), state="broken")
    assert [(one.active, one.broken) for one in md.arrays(tmp_path)] == [(True, False), (True, True)]


def test_one_that_nobody_wrote_to_yet_is_on_hold(tmp_path: Path) -> None:
    array(tmp_path, "md127", ("nvme0n1", "in_sync"), state="read-auto")
    (found,) = md.arrays(tmp_path)
    assert (found.active, found.on_hold, found.read_only) == (True, True, False)


def test_a_mirror_is_known_by_its_id_when_its_legs_are_gone(tmp_path: Path) -> None:
    array(tmp_path, "md127", ("nvme0n1", "in_sync"), ("nvme1n1", "faulty"))
    array(tmp_path, "md126", ident="99999999-2222-4333-8444-555555555555", state="clear")
    (tmp_path / "block/nvme1n1").mkdir()
    found = md.known(IDENT, set(), tmp_path)
    assert found is not None
    assert [(one.name, one.here) for one in found.members] == [("nvme0n1", False), ("nvme1n1", True)]
    assert md.known("99999999-2222-4333-8444-555555555555", set(), tmp_path) is None, "what was stopped has no members"
    (tmp_path / "block/md127/md/uuid").unlink()
    assert md.known(IDENT, set(), tmp_path) is None
    assert md.known(IDENT, {"nvme0n1"}, tmp_path) == md.over({"nvme0n1"}, tmp_path)


def test_what_a_member_knows() -> None:
    found = md.superblock(block(roles=(0, 0xFFFE, 1, 0xFFFF)))
    assert found == md.Superblock(IDENT, 1, 2, 20, 2)
    alone = md.superblock(block(events=31, roles=(0, 0xFFFE)))
    assert alone is not None
    assert (alone.active, alone.events) == (1, 31)


@given(st.binary(max_size=5000))
def test_anything_else_is_no_superblock(data: bytes) -> None:
    assert md.superblock(data) is None or data[:4] == b"\xfc\x4e\x2b\xa9"


@given(st.binary(min_size=256, max_size=4096))
def test_a_damaged_one_does_no_harm(tail: bytes) -> None:
    md.superblock(block()[:64] + tail)
