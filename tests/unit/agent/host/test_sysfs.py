"""Block devices out of a made-up sysfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.host import sysfs


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


@pytest.fixture
def sys_root(tmp_path: Path) -> Path:
    block = tmp_path / "block"
    for number in (0, 3, 10):
        _put(block / f"loop{number}" / "size", "2048")
        _put(block / f"loop{number}" / "ro", "0")
        _put(block / f"loop{number}" / "dev", f"7:{number}")
        (block / f"loop{number}" / "holders").mkdir()
    for number in (10, 3):
        _put(block / f"loop{number}" / "loop" / "backing_file", f"/vol/{number} (deleted)")
    _put(block / "loop3" / "diskseq", "77")
    (block / "loop3" / "holders" / "dm-0").mkdir()
    _put(block / "dm-0" / "dm" / "name", "brickyard-x")
    _put(block / "dm-0" / "dm" / "uuid", "CRYPT-LUKS1-abc")
    _put(block / "dm-0" / "size", "8")
    (block / "dm-0" / "slaves" / "loop3").mkdir(parents=True)
    return tmp_path


def test_bound_loop_devices_in_order(sys_root: Path) -> None:
    found = sysfs.loop_devices(sys_root)
    assert [loop.number for loop in found] == [3, 10]
    assert found[0] == sysfs.LoopDevice(3, "loop3", "/vol/3 (deleted)", 1 << 20, 77, False)
    assert found[1].diskseq is None
    assert sysfs.loop_device(0, sys_root) is None


def test_mapper_devices(sys_root: Path) -> None:
    assert sysfs.mapper_device("brickyard-x", sys_root) == sysfs.MapperDevice(
        "dm-0", "brickyard-x", "CRYPT-LUKS1-abc", 4096, ("loop3",)
    )
    assert sysfs.mapper_device("other", sys_root) is None


def test_users_are_named(sys_root: Path, tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    _put(proc / "self" / "mountinfo", "30 1 7:3 / /mnt/a rw - ext4 /dev/loop3 rw\n31 1 8:1 / /b rw - ext4 /dev/sda1 rw")
    _put(proc / "swaps", "Filename Type Size Used Priority\n/dev/loop3 partition 1 0 -2")
    assert sysfs.users_of("loop3", sys_root, proc) == (
        "dm-0 (brickyard-x)", "mounted on /mnt/a", "swap on /dev/loop3"
    )  # fmt: skip
    assert sysfs.users_of("loop10", sys_root, proc) == ()


def test_mapper_support(sys_root: Path) -> None:
    assert not sysfs.has_mapper(sys_root)
    (sys_root / "class" / "misc" / "device-mapper").mkdir(parents=True)
    assert sysfs.has_mapper(sys_root)
