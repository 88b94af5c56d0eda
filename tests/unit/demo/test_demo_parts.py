"""The parts that the demo's proofs stand on: a search that finds, a watch that sees, canaries everywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from demo import prepare, proof
from demo.guardian import descendants
from demo.opened import OpenWatch
from demo.place import Place, filesystem_of
from demo.report import Report
from demo.tools import by_fd

MiB = 1 << 20


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "memory").mkdir()
    (tmp_path / "root" / "home").mkdir(parents=True)
    return Place("00", tmp_path / "root", tmp_path / "memory")


def test_the_search_finds_what_spans_two_pieces_and_skips_holes(place: Place) -> None:
    place.on_loop = True
    with place.image.open("wb") as file:
        file.truncate(80 * MiB)
        os.pwrite(file.fileno(), b"x" * (17 * MiB), 0)
        for at in (0, 16 * MiB - 3, 70 * MiB):
            os.pwrite(file.fileno(), b"canary", at)
    looked_at, hits = place.search([b"canary", b"nowhere"])
    assert sorted(hits) == [f"home.ext4@{at}" for at in (0, 16 * MiB - 3, 70 * MiB)]
    assert 17 * MiB <= looked_at < 30 * MiB


def test_the_search_looks_into_all_files_of_a_plain_folder(place: Place) -> None:
    (place.home / "deep").mkdir()
    (place.home / "deep" / "file").write_bytes(b"..secret..secret")
    assert place.search([b"secret"]) == (16, ["file@2", "file@10"])


def test_a_watch_sees_openings(tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        path.write_text("x")
    watch = OpenWatch(paths)
    try:
        assert watch.opened() == set()
        paths[1].read_text()
        assert watch.opened() == {"two"}
        assert watch.works()
    finally:
        watch.close()


@pytest.mark.skipif(not shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/bin"), reason="needs mkfs.ext4")
def test_each_mib_of_the_source_holds_a_canary_of_its_own(place: Place) -> None:
    source = prepare.make_source(place)
    data = source.path.read_bytes()
    assert len(data) == prepare.SOURCE_BYTES
    seen = set()
    for start in range(0, len(data), MiB):
        at = data.index(source.canary, start, start + MiB)
        text = data[at : at + len(source.canary) + 15]
        assert len(text) >= 32
        seen.add(text)
    assert len(seen) == prepare.SOURCE_BYTES // MiB


def test_zeros_are_told_from_data(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data" + bytes(9 * MiB))
    with path.open("r+b") as file:
        assert proof._zeros(file.fileno(), 4, 9 * MiB)
        os.pwrite(file.fileno(), b"\1", 8 * MiB + 5)
        assert not proof._zeros(file.fileno(), 4, 9 * MiB)
        assert proof._zeros(file.fileno(), 4, 8 * MiB)


def test_a_secret_is_read_by_descriptor() -> None:
    with by_fd(b"word") as fd:
        os.lseek(fd, 0, os.SEEK_SET)
        done = subprocess.run(["cat", f"/dev/fd/{fd}"], pass_fds=(fd,), capture_output=True, check=True)
    assert done.stdout == b"word"


def test_grandchildren_are_descendants() -> None:
    child = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        assert {child.pid, grandchild} <= set(descendants(os.getpid()))
        os.kill(grandchild, 9)
    finally:
        child.kill()
        child.communicate()


def test_the_file_system_of_a_path() -> None:
    assert filesystem_of(Path("/proc/self")) == "proc"


def test_the_closing_table(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    with report.step("One") as step:
        step.bytes = 5 * MiB
    with report.step("Another"):
        report.proved("so it is")
    lines = report.table().splitlines()
    assert [line.split()[0] for line in lines] == ["step", "One", "Another", "all"]
    assert lines[1].split()[2] == "5"
    assert "so it is" in capsys.readouterr().out


def test_progress_is_told_by_quarters(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    report.live = False
    with report.progress("copy") as tellers:
        for done in range(0, 101):
            tellers["copy"]({"progress": {"phase": "fill", "done": done * MiB, "total": 100 * MiB, "rate": MiB}})
        tellers["copy"]({"progress": None})
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 5
    assert "fill 25 of 100 MiB, 1 MiB/s" in told[1]
