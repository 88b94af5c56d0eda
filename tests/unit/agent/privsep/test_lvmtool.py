"""What root's LVM looks at: never the content of volumes, whoever made the device that shows it."""

from __future__ import annotations

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
