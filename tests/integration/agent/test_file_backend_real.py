"""The file back end killed, on a file system that shares data, on a full one, and for speed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from agent.backends.base import CloneSource, Work
from agent.backends.config import FileBackendConfig
from agent.backends.errors import NoPermission, NoSpace, OverSubscribed
from agent.backends.file import FileBackend
from agent.base.ids import new_id
from agent.copying.model import CopyOptions

MIB = 1 << 20
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


@contextlib.contextmanager
def mounted(folder, *make):
    disk, place = folder / "disk", folder / "mnt"
    place.mkdir()
    with disk.open("wb") as out:
        out.truncate(320 * MIB)
    subprocess.run([*make, disk], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", disk, place], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"loop mounts are not possible here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def opened(path, **keys):
    return contextlib.closing(FileBackend("b", FileBackendConfig(path=path, **keys)))


def fill(path, data, at=0):
    with open(path, "r+b") as out:
        out.seek(at)
        out.write(data)


@pytest.mark.root
@needs_root
async def test_clones_and_snapshots_share_data_on_xfs(tmp_path):
    with (
        mounted(tmp_path, "mkfs.xfs", "-q", "-m", "reflink=1") as place,
        opened(place / "v", max_over_subscription=1000) as backend,
    ):
        assert (await backend.pool()).reflink
        volume, snapshot, clone = new_id(), new_id(), new_id()
        await backend.create(volume, 1 << 30)
        data = os.urandom(100 * MIB)
        fill(await backend.path(volume), data)
        os.sync()
        free = (await backend.pool()).free_bytes
        await backend.snapshot(volume, snapshot)
        await backend.clone(clone, 2 << 30, CloneSource("snapshot", snapshot))
        assert free - (await backend.pool()).free_bytes < 2 * MIB
        fill(await backend.path(volume), b"later")
        with open(await backend.path(clone), "rb") as there:
            assert there.read(100 * MIB) == data
            assert there.read(MIB) == bytes(MIB)
        assert os.stat(await backend.path(clone)).st_size == 2 << 30


@pytest.mark.root
@needs_root
async def test_a_full_file_system_has_its_own_error_and_keeps_nothing_half_made(tmp_path):
    with mounted(tmp_path, "mkfs.ext4", "-q", "-m", "0") as place, opened(place / "v") as backend:
        assert not (await backend.pool()).reflink
        volume, copy = new_id(), new_id()
        await backend.create(volume, 180 * MIB)
        fill(await backend.path(volume), os.urandom(180 * MIB))
        with pytest.raises(NoSpace) as caught:
            await backend.clone(copy, 180 * MIB, CloneSource("volume", volume))
        assert caught.value.status == 507
        assert str(place) not in str(caught.value)
        assert [(h.kind, h.id) for h in await backend.inventory()] == [("volume", volume)]
        with pytest.raises(OverSubscribed):
            await backend.extend(volume, 1 << 62)


@pytest.mark.root
@needs_root
def test_no_right_to_the_folder(tmp_path):
    (tmp_path / "v").mkdir(mode=0o700)
    tmp_path.chmod(0o755)
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            FileBackend("b", FileBackendConfig(path=tmp_path / "v"))
        except NoPermission:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


PROGRAM = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from agent.backends.base import CloneSource
    from agent.backends.config import FileBackendConfig
    from agent.backends.file import FileBackend

    async def main():
        backend = FileBackend("b", FileBackendConfig(path=Path(sys.argv[1])))
        print("open", flush=True)
        ids = sys.argv[2:]
        for first, second, snapshot in zip(ids[0::3], ids[1::3], ids[2::3]):
            await backend.create(first, 5 << 20)
            with open(await backend.path(first), "r+b") as out:
                out.write(first.encode() * 1000)
            await backend.snapshot(first, snapshot)
            await backend.clone(second, 6 << 20, CloneSource("snapshot", snapshot))
            await backend.extend(first, 7 << 20)

    asyncio.run(main())
    """
)


@pytest.mark.kill
async def test_killed_at_any_moment_nothing_half_made_has_a_name(tmp_path):
    moment, kills = random.Random(5), 0
    for _ in range(8):
        root = tmp_path / new_id()
        ids = [new_id() for _ in range(120)]
        worker = subprocess.Popen([sys.executable, "-c", PROGRAM, root, *ids], stdout=subprocess.PIPE)
        try:
            worker.stdout.readline()
            worker.wait(moment.uniform(0.0, 0.25))
        except subprocess.TimeoutExpired:
            worker.send_signal(signal.SIGKILL)
            kills += 1
        finally:
            worker.kill()
            worker.wait()
            worker.stdout.close()
        with opened(root) as backend:
            for held in await backend.inventory():
                if held.kind == "volume":
                    assert held.device_bytes in ((5 * MIB, 7 * MIB) if ids.index(held.id) % 3 == 0 else (6 * MIB,))
                if held.kind == "volume" and ids.index(held.id) % 3 == 1:
                    content = (await backend.path(held.id)).read_bytes()
                    assert content[:36].decode() == ids[ids.index(held.id) - 1]
                assert held.kind != "leftover" or held.id in ids
                await (backend.delete_snapshot if held.kind == "snapshot" else backend.delete)(held.id)
            assert await backend.inventory() == []
            assert (await backend.pool()).allocated_bytes == 0
    assert kills >= 4


async def test_create_is_quick(tmp_path):
    with opened(tmp_path / "v") as backend:
        times = []
        for _ in range(100):
            began = time.perf_counter()
            await backend.create(new_id(), 1 << 30)
            times.append(time.perf_counter() - began)
        assert sorted(times)[50] < 0.03


async def test_rate_limit_of_the_configuration_holds(tmp_path):
    with opened(tmp_path / "v", rate_limit=8 * MIB) as backend:
        volume = new_id()
        await backend.create(volume, 6 * MIB)
        fill(await backend.path(volume), os.urandom(6 * MIB))
        began = time.monotonic()
        await backend.clone(new_id(), 6 * MIB, CloneSource("volume", volume), Work(CopyOptions(reflink=False)))
        assert time.monotonic() - began >= 0.64, "0.75 s, less the 0.1 s that a stall is made up for"
