"""Nobody is cut off from what this host itself runs from, whatever stands in between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host import kernel
from agent.privsep import cutting
from agent.privsep.errors import VerbRefused


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """nvme0n1 below dm-0, which is mounted where `proc/self/mountinfo` says."""
    for name, number in (("nvme0n1", "259:0"), ("dm-0", "253:0")):
        (tmp_path / "sys/block" / name / "holders").mkdir(parents=True)
        (tmp_path / "sys/block" / name / "dev").write_text(f"{number}\n")
    (tmp_path / "sys/block/nvme0n1/holders/dm-0").mkdir()
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/swaps").write_text("Filename\n")
    (tmp_path / "proc/self/mountinfo").write_text("")
    real, ours = kernel.current(), kernel.Kernel()
    ours.sys, ours.proc = tmp_path / "sys", tmp_path / "proc"
    kernel.use(ours)
    yield tmp_path
    kernel.use(real)


def mounted(tree: Path, place: str) -> None:
    (tree / "proc/self/mountinfo").write_text(f"1 0 253:0 / {place} rw - ext4 /dev/dm-0 rw\n")


@pytest.mark.parametrize("place", ["/", "/usr", "/var"])
@pytest.mark.parametrize("name", ["nvme0n1", "dm-0"])
def test_the_hosts_own_is_refused(tree: Path, place: str, name: str) -> None:
    mounted(tree, place)
    with pytest.raises(VerbRefused, match="this host itself needs"):
        cutting.spare_system(name)


def test_swap_is_refused(tree: Path) -> None:
    (tree / "proc/swaps").write_text("Filename\n/dev/nvme0n1 partition 1 0 -2\n")
    with pytest.raises(VerbRefused, match="swap on"):
        cutting.spare_system("nvme0n1")


def test_what_users_have_mounted_is_not_spared(tree: Path) -> None:
    cutting.spare_system("nvme0n1")
    mounted(tree, "/srv/data")
    cutting.spare_system("nvme0n1")
