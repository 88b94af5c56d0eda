"""Channel devices of a big-endian kernel: a disk is taken offline and brought back, and udev tells of it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host import sysfs, udev

BUS_ID = "0.0.1000"  # of the first empty disk
CCW = Path("/sys/bus/ccw/devices") / BUS_ID
LINK = Path("/dev/disk/by-path") / f"ccw-{BUS_ID}"
WAIT_S = 60


@pytest.fixture
def online() -> Iterator[None]:
    yield
    if (CCW / "online").read_text().strip() != "1":
        subprocess.run(["chccwdev", "-e", BUS_ID], check=True)
    subprocess.run(["udevadm", "settle"], check=True)


def test_the_guest_is_big_endian_and_has_the_drivers() -> None:
    assert (sys.byteorder, platform.machine()) == ("big", "s390x")
    for module in "dasd_mod dasd_eckd_mod zfcp qdio dm_crypt dm_thin_pool loop iscsi_tcp nvme_tcp".split():
        subprocess.run(["modprobe", "--dry-run", module], check=True)
    assert sysfs.has_mapper()
    assert udev.udevd_runs()


@pytest.mark.parametrize("way", ["chccwdev", "sysfs"])
async def test_a_disk_goes_offline_and_comes_back_with_its_data(online: None, way: str) -> None:
    disk = LINK.resolve()
    with disk.open("r+b", buffering=0) as out:
        out.write(b"kept" * 128)
    subprocess.run(["udevadm", "settle"], check=True)  # udev may have it open after a write

    def switch(to: str) -> None:
        if way == "sysfs":
            (CCW / "online").write_text(to)
        else:
            subprocess.run(["chccwdev", "-e" if to == "1" else "-d", BUS_ID], check=True)

    async with udev.subscribed() as events:
        switch("0")
        gone = await events.wait(lambda event: event.action == "remove" and event.name == disk.name, WAIT_S)
        assert gone is not None
        assert not Path(f"/sys/class/block/{disk.name}").exists()
        assert (CCW / "online").read_text().strip() == "0"
        switch("1")
        assert await events.wait(lambda event: event.action == "add" and event.name.startswith("vd"), WAIT_S)
    subprocess.run(["udevadm", "settle"], check=True)
    with LINK.open("rb") as back:
        assert back.read(512) == b"kept" * 128


def test_a_device_that_is_not_there_is_told() -> None:
    done = subprocess.run(["chccwdev", "-e", "0.0.ffff"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not found" in done.stdout + done.stderr


def test_a_disk_that_is_held_is_seen(disks: tuple[Path, ...]) -> None:
    """What the project asks before it takes a disk away must be right on this processor too."""
    subprocess.run(["dmsetup", "create", "holder", "--table", f"0 8 linear {disks[0]} 0"], check=True)
    try:
        assert [user for user in sysfs.users_of(disks[0].name) if "(holder)" in user]
    finally:
        subprocess.run(["dmsetup", "remove", "holder"], check=True)
    assert os.listdir(f"/sys/class/block/{disks[0].name}/holders") == []
