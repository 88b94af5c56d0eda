"""The copy engine killed, on full file systems, on devices and on a file system that shares data."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap

import pytest

from agent.copying.engine import copy
from agent.copying.errors import DestinationFull, DestinationSmall
from agent.copying.model import Checkpoint, CopyOptions, Dest, Source, by_path

MIB = 1 << 20


@contextlib.contextmanager
def mounted(folder, *options, make=()):
    """A file system in a file of 320 MiB (or a tmpfs), mounted at `folder`/mnt."""
    place = folder / "mnt"
    place.mkdir()
    what = "tmpfs"
    if make:
        what = folder / "disk"
        with what.open("wb") as out:
            out.truncate(320 * MIB)
        subprocess.run([*make, what], check=True, capture_output=True)
    done = subprocess.run(["mount", *options, what, place], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting is not possible here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@contextlib.contextmanager
def loop_device(backing):
    done = subprocess.run(["losetup", "--find", "--show", backing], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop device to be had: {done.stderr.strip()}")
    try:
        yield done.stdout.strip()
    finally:
        subprocess.run(["losetup", "--detach", done.stdout.strip()], check=True)


def lay(path, size, runs):
    source = random.Random(3)
    with path.open("wb") as out:
        out.truncate(size)
        for offset, length in runs:
            out.seek(offset)
            out.write(source.randbytes(length))
    return path


async def copied(source, dest, size, dest_size=None, skippable=True, **options):
    return await copy(
        Source(by_path(source), size), Dest(by_path(dest), dest_size or size, zeros_skippable=skippable),
        CopyOptions(**options), lambda _: None, None, asyncio.Event(),
    )  # fmt: skip


PROGRAM = textwrap.dedent(
    """
    import asyncio, os, sys
    from pathlib import Path
    from agent.copying.engine import copy
    from agent.copying.model import Checkpoint, CopyOptions, Dest, Source, by_path

    folder, start = Path(sys.argv[1]), int(sys.argv[2])
    async def save(offset):
        (folder / "note.new").write_text(str(offset))
        (folder / "note.new").rename(folder / "note")
        print(offset, flush=True)
    size = (folder / "a").stat().st_size
    asyncio.run(copy(
        Source(by_path(folder / "a"), size), Dest(by_path(folder / "b"), size, zeros_skippable=True),
        CopyOptions(rate_limit=40 << 20, checkpoint_every=2 << 20, reflink=False), lambda _: None,
        Checkpoint(start, save), asyncio.Event(),
    ))
    """
)


@pytest.mark.kill
def test_killed_at_any_moment_it_goes_on_from_its_note(tmp_path):
    source = lay(tmp_path / "a", 40 * MIB, [(0, 15 * MIB), (20 * MIB, 13 * MIB + 77)])
    (tmp_path / "b").touch()
    note, moment, kills = tmp_path / "note", random.Random(11), 0
    for _ in range(6):
        start = note.read_text() if note.exists() else "0"
        worker = subprocess.Popen([sys.executable, "-c", PROGRAM, tmp_path, start], stdout=subprocess.PIPE)
        try:
            worker.stdout.readline()
            worker.wait(moment.uniform(0.0, 0.1))
        except subprocess.TimeoutExpired:
            worker.send_signal(signal.SIGKILL)
            kills += 1
        finally:
            worker.kill()
            worker.wait()
            worker.stdout.close()
    assert kills >= 3
    assert int(note.read_text()) > 0
    subprocess.run([sys.executable, "-c", PROGRAM, tmp_path, note.read_text()], check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "b").read_bytes() == source.read_bytes()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
async def test_full_destination(tmp_path):
    source = lay(tmp_path / "a", 8 * MIB, [(0, 8 * MIB)])
    for number, options in enumerate((["-t", "tmpfs", "-o", "size=4m"], ["-t", "ext4", "-o", "loop"])):
        (tmp_path / str(number)).mkdir()
        make = () if "tmpfs" in options else ("mkfs.ext4", "-q")
        with mounted(tmp_path / str(number), *options, make=make) as place:
            if make:
                left = os.statvfs(place)
                with (place / "filler").open("wb") as out:
                    os.posix_fallocate(out.fileno(), 0, (left.f_bfree * left.f_frsize - 4 * MIB) // 4096 * 4096)
            (place / "b").touch()
            with pytest.raises(DestinationFull) as caught:
                await copied(source, place / "b", 8 * MIB, chunk=MIB)
            assert str(tmp_path) not in str(caught.value)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes a loop device")
@pytest.mark.parametrize("size", [16 * MIB, 16 * MIB - 512])
async def test_onto_a_device_zeros_are_written(tmp_path, size):
    source = lay(tmp_path / "a", 9 * MIB + 100, [(0, MIB), (5 * MIB, MIB), (9 * MIB, 100)])
    (tmp_path / "disk").write_bytes(b"\xff" * size)
    with loop_device(tmp_path / "disk") as device:
        result = await copied(source, device, source.stat().st_size, dest_size=size, skippable=False)
        assert result.direct
        assert result.size == size
        with open(device, "rb") as there:
            assert there.read() == source.read_bytes() + bytes(size - source.stat().st_size)
        with pytest.raises(DestinationSmall):
            await copied(source, device, source.stat().st_size, dest_size=size + MIB)
        back = tmp_path / "c"
        back.touch()
        await copied(device, back, size)
        assert back.read_bytes() == (tmp_path / "disk").read_bytes()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
async def test_shared_where_the_file_system_can(tmp_path):
    with mounted(tmp_path, "-o", "loop", make=("mkfs.xfs", "-q", "-m", "reflink=1")) as place:
        source = lay(place / "a", 100 * MIB, [(0, 60 * MIB)])
        os.sync()
        free = os.statvfs(place).f_bfree
        (place / "b").touch()
        result = await copied(source, place / "b", 100 * MIB, dest_size=101 * MIB)
        assert result.reflinked
        assert result.moved == 0
        assert (place / "b").stat().st_size == 101 * MIB
        used = (free - os.statvfs(place).f_bfree) * os.statvfs(place).f_frsize
        assert used < MIB
        assert (place / "b").read_bytes() == source.read_bytes() + bytes(MIB)

        saved = []

        async def note(offset: int) -> None:
            saved.append(offset)

        (tmp_path / "c").touch()
        across = await copy(
            Source(by_path(source), 100 * MIB), Dest(by_path(tmp_path / "c"), 100 * MIB, zeros_skippable=True),
            CopyOptions(), lambda _: None, Checkpoint(0, note), asyncio.Event(),
        )  # fmt: skip
        assert not across.reflinked
        assert saved[-1] == 100 * MIB
        assert (tmp_path / "c").read_bytes() == source.read_bytes()
