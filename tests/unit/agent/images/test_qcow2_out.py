"""A volume written as qcow2: what qemu reads of it is the volume, and only what holds data is in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.images import qcow2_out
from agent.images.inspect import Declared, inspect
from agent.images.qcow2_out import CLUSTER, blocks, plan

MiB = 1 << 20
QEMU = shutil.which("qemu-img")


def written(path: Path, size: int, at: tuple[int, ...]) -> Path:
    """Random bytes at each of these places, two clusters and a bit long."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset in at:
            file.seek(offset)
            file.write(os.urandom(min(2 * CLUSTER + 77, size - offset)))
    return path


def packed(source: Path, to: Path) -> qcow2_out.Plan:
    size = source.stat().st_size
    with source.open("rb") as volume, to.open("wb") as file:
        made, told = plan(volume.fileno(), size), [0]
        for done, block in blocks(volume.fileno(), made):
            file.write(block)
            told.append(done)
        assert (told[-1], told) == (size, sorted(told))
    assert to.stat().st_size == made.length
    return made


@pytest.mark.skipif(QEMU is None, reason="qemu-img is not installed")
@pytest.mark.parametrize(
    ("size", "at"),
    [
        (512, (0,)),
        (MiB, ()),
        (10 * MiB + 512, (0, 5 * MiB, 10 * MiB)),
        (1300 * MiB, (70 * MiB - 4096, 512 * MiB - CLUSTER, 1299 * MiB)),
    ],
)
def test_qemu_finds_the_volume_in_it(tmp_path: Path, size: int, at: tuple[int, ...]) -> None:
    source, to = written(tmp_path / "volume", size, at), tmp_path / "image"
    made = packed(source, to)
    assert made.length < 12 * MiB
    for words in (("check", to), ("compare", "-f", "raw", "-F", "qcow2", source, to)):
        done = subprocess.run([str(QEMU), *map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    with to.open("rb") as file:
        assert inspect(file.fileno(), Declared("qcow2", "bare", encrypted=False)).virtual_size == size


def test_tables_hold_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "volume"
    source.touch()
    for clusters in (1, 32_000, 32_760, 32_768, 40_000, 300_000_000):
        monkeypatch.setattr(qcow2_out, "_told", lambda fd, size, clusters=clusters: iter([(0, clusters)]))
        monkeypatch.setattr(qcow2_out, "_PER_L2", 8192 if clusters < 1_000_000 else 1 << 40)
        with source.open("rb") as file:
            made = plan(file.fileno(), clusters * CLUSTER)
        assert (made.refcount_blocks - 1) * 32_768 < made.clusters <= made.refcount_blocks * 32_768
        assert made.refcount_blocks * 8 <= made.refcount_table * CLUSTER


def test_a_device_is_read_for_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(tmp_path / "volume", 9 * MiB + 100, (3 * MiB, 9 * MiB))
    size = source.stat().st_size
    with source.open("rb") as file:
        read = list(qcow2_out._read_through(file.fileno(), size))
        assert [begin for begin, _ in read] == [48, 49, 50, 144]
        monkeypatch.setattr(qcow2_out.stat, "S_ISBLK", lambda mode: True)
        assert plan(file.fileno(), size).runs == ((48, 51), (144, 145))
