"""A tool that waits inside the kernel, on a frozen file system: it is told, not waited for, and nothing races it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.host import tools
from agent.host.errors import ResourceBusy, ToolStuck
from agent.host.locks import resource_lock
from agent.host.run import run

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="freezing a file system needs root"),
    pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="no loop devices here"),
    pytest.mark.skipif(shutil.which("mkfs.ext4", path="/usr/sbin:/sbin") is None, reason="needs mkfs.ext4"),
]
_FREEZE, _THAW = 0xC0045877, 0xC0045878  # FIFREEZE, FITHAW

tools.declare(tools.Tool("dd", "coreutils", "tests"))


class Frozen:
    """A mounted ext4 that can be frozen: who writes to it then waits where no signal reaches."""

    def __init__(self, folder: Path) -> None:
        self.mount = folder / "mount"
        self.mount.mkdir()
        image = folder / "image"
        with image.open("wb") as file:
            file.truncate(32 << 20)
        subprocess.run(["/usr/sbin/mkfs.ext4", "-q", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, self.mount], check=True)
        self._fd = os.open(self.mount, os.O_RDONLY)
        self.frozen = False

    def freeze(self) -> None:
        fcntl.ioctl(self._fd, _FREEZE, 0)
        self.frozen = True

    def thaw(self) -> None:
        if self.frozen:
            fcntl.ioctl(self._fd, _THAW, 0)
            self.frozen = False

    def close(self) -> None:
        self.thaw()
        os.close(self._fd)
        subprocess.run(["umount", "--lazy", self.mount], check=True)


@pytest.fixture
def disk() -> Iterator[Frozen]:
    with tempfile.TemporaryDirectory(prefix="brickyard-stuck-", dir="/var/tmp") as name:
        try:
            made = Frozen(Path(name))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no file system can be mounted here: {error}")
        try:
            yield made
        finally:
            made.close()


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "gone"


async def test_it_is_told_and_keeps_its_resource_until_it_ends(disk: Frozen, tmp_path: Path) -> None:
    disk.freeze()
    async with resource_lock(tmp_path, "volume", 5) as lock:
        with pytest.raises(ToolStuck) as caught:
            await run(
                ["dd", "if=/dev/zero", f"of={disk.mount / 'file'}", "bs=4096", "count=1"], timeout=0.5, grace=0.5,
                lock_fd=lock,
            )  # fmt: skip
        pid = int(caught.value.context["pid"])
    assert state_of(pid) == "D"
    assert caught.value.code == "tool.stuck"
    with pytest.raises(ResourceBusy):
        async with resource_lock(tmp_path, "volume", 0.5):
            pass
    disk.thaw()
    async with resource_lock(tmp_path, "volume", 30):
        assert state_of(pid) in {"gone", "Z"}


async def test_a_cancelled_caller_is_not_held_up_by_it(disk: Frozen) -> None:
    disk.freeze()
    running = asyncio.ensure_future(
        run(["dd", "if=/dev/zero", f"of={disk.mount / 'file'}", "bs=4096", "count=1"], timeout=600, grace=0.5)
    )
    await asyncio.sleep(0.5)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await asyncio.wait_for(running, 60)
    assert running.cancelled()
