"""What root's LVM looks at: never the content of volumes, whoever made the device that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.host.sysfs import Disk
from agent.privsep import checks, limits, lvmtool
from agent.privsep.errors import LvmFailed, VerbRefused

IDENT = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("disk", "content"),
    [
        (Disk("sda", 1 << 30, "", ""), False),
        (Disk("dm-0", 1 << 30, "mpath-3600", "mpatha"), False),
        (Disk("dm-0", 1 << 30, "CRYPT-LUKS2-00-host", "host"), False),
        (Disk("dm-1", 1 << 30, "LVM-aydBZJ", "vg0-byv--1"), True),
        (Disk("dm-1", 1 << 30, "part1-LVM-aydBZJ", "vg0-byv--1p1"), True),
        (Disk("dm-2", 1 << 30, f"BRICKYARD-{IDENT}", f"brickyard-lv-{IDENT}"), True),
        (Disk("dm-3", 1 << 30, "CRYPT-LUKS1-00-brickyard", f"brickyard-{IDENT}"), True),
        (Disk("loop99999", 1 << 30, "", ""), True),
    ],
)
def test_devices_that_show_what_is_in_a_volume_are_not_looked_at(disk: Disk, content: bool) -> None:
    assert lvmtool.is_content(disk) is content


def test_volumes_of_other_hosts_are_not_looked_at_by_whatever_way_they_came(tmp_path: Path) -> None:
    """A guest's group in one could have our name, and while its host is away who reads it hangs."""

    def made(name: str, folder: str, *slaves: str) -> Disk:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / "block").mkdir(exist_ok=True)
        (tmp_path / "block" / name).symlink_to(tmp_path / folder)
        for slave in slaves:
            (tmp_path / folder / "slaves" / slave).mkdir(parents=True)
        return Disk(name, 1 << 30, "mpath-3600" if name.startswith("dm-") else "", "")

    def said(file: str, text: str) -> None:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(f"{text}\n")

    found = {
        "sda": made("sda", "devices/platform/host1/session1/target1:0:0/1:0:0:0/block/sda"),
        "sdb": made("sdb", "devices/platform/host2/session2/target2:0:0/2:0:0:0/block/sdb"),
        "sdc": made("sdc", "devices/pci0/ata1/host3/target3:0:0/3:0:0:0/block/sdc"),
        "nvme0n1": made("nvme0n1", "devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"),
        "nvme1n1": made("nvme1n1", "devices/pci0/nvme/nvme1/nvme1n1"),
        "dm-0": made("dm-0", "devices/virtual/block/dm-0", "sda"),
        "dm-1": made("dm-1", "devices/virtual/block/dm-1", "sdb"),
        "md0": made("md0", "devices/virtual/block/md0", "nvme0n1"),
    }
    said("class/iscsi_session/session1/targetname", f"iqn.2026-01.io.brickyard:{IDENT}")
    said("class/iscsi_session/session2/targetname", "iqn.2001-05.com.example:array")
    said("devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/device/subsysnqn", f"nqn.2026-01.io.brickyard:{IDENT}:0a")
    said("devices/pci0/nvme/nvme1/nvme1n1/device/subsysnqn", "nqn.2019-08.org.example:disk")
    content = {name for name, disk in found.items() if lvmtool.is_content(disk, tmp_path)}
    assert content == {"sda", "nvme0n1", "dm-0", "md0"}


def test_a_report_that_is_none_is_an_error() -> None:
    assert lvmtool.rows('{"report": [{"lv": [{"lv_name": "x"}]}]}', "lv") == [{"lv_name": "x"}]
    assert lvmtool.rows("", "lv") == []
    for text in ("x", "[]", '{"report": [3]}'):
        with pytest.raises(LvmFailed):
            lvmtool.rows(text, "lv")


def test_groups_and_names_are_those_allowed_alone() -> None:
    limits.use(limits.Limits(groups=("vg0",)))
    assert checks.group("vg0") == "vg0"
    assert checks.logical("volume", IDENT) == f"byv-{IDENT}"
    assert checks.foreign("pool", "thin pool") == "pool"
    for value in ("vg1", "", None, 3, "vg0\0", ["vg0"]):
        with pytest.raises(VerbRefused):
            checks.group(value)
    for part, ident in (("pool", IDENT), ("volume", "../x"), (None, IDENT), ("volume", 3)):
        with pytest.raises(VerbRefused):
            checks.logical(part, ident)
    for name in ("-v", "a/b", f"byv-{IDENT}", "", None, "pool_tdata"):
        with pytest.raises(VerbRefused):
            checks.foreign(name, "thin pool")
    for size in (0, -512, 513, True, "512", 1 << 63):
        with pytest.raises(VerbRefused):
            checks.size(size)
