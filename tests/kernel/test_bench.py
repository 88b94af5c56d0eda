"""The bench itself: what every other kernel test relies on is there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agent.host import sysfs, udev
from tests.kernel.bench import nothing_left

pytestmark = pytest.mark.smoke


def test_the_kernel_has_what_the_project_uses() -> None:
    modules = "loop dm_crypt dm_thin_pool dm_multipath dm_snapshot iscsi_tcp iscsi_target_mod target_core_iblock"
    modules += " nvmet_tcp nvme_tcp scsi_debug fcoe tcm_fc nfsd nfs raid1"
    for module in modules.split():
        subprocess.run(["modprobe", "--dry-run", module], check=True)
    assert sysfs.has_mapper()
    assert udev.udevd_runs()


def test_the_disks_are_empty_and_of_their_size(disks: tuple[Path, ...]) -> None:
    sizes = [int(Path(f"/sys/class/block/{disk.name}/size").read_text()) // 2048 for disk in disks]
    assert sizes == [2048, 1024, 512]
    with disks[0].open("rb") as file:
        assert not any(file.read(1 << 20))


def test_what_is_left_behind_is_seen(tmp_path: Path) -> None:
    before = nothing_left.seen()
    file = tmp_path / "file"
    with file.open("wb") as out:
        out.truncate(1 << 20)
    device = subprocess.run(
        ["losetup", "-f", "--show", file], check=True, capture_output=True, text=True
    ).stdout.strip()
    subprocess.run(["dmsetup", "create", "left", "--table", f"0 8 linear {device} 0"], check=True)
    (tmp_path / "mnt").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "left", tmp_path / "mnt"], check=True)
    now = nothing_left.seen()
    assert {name for name in now if now[name] != before[name]} == {"block devices", "mounts"}
    subprocess.run(["umount", tmp_path / "mnt"], check=True)
    subprocess.run(["dmsetup", "remove", "left"], check=True)
    subprocess.run(["losetup", "-d", device], check=True)
    assert not nothing_left.difference(before)


def test_an_unprivileged_user_reads_the_project_and_runs_it() -> None:
    python = Path(os.path.realpath("/proc/self/cwd")) / ".venv/bin/brickyard-agent"
    command = ["setpriv", "--reuid=nobody", "--clear-groups", "--regid=nogroup", "--", python, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
