"""The parts of the kernel bench that need no guest: what a test file asks for, the cache, the archive of the source."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from tests.kernel.bench import boot, guests, place, plan, suites, transfer, um
from tests.kernel.bench.machine import Machine
from tests.kernel.bench.place import ROOT


def test_a_file_gets_the_machine_that_it_asks_for(tmp_path: Path) -> None:
    file = tmp_path / "test_x.py"
    file.write_text("import something_of_the_guest\nMACHINE = {'nics': 3, 'disks': [64]}\n")
    assert plan.machine_of(file) == Machine(disks=(64,), nics=3)
    file.write_text("X = 1\n")
    assert plan.machine_of(file) == Machine()
    file.write_text("MACHINE = {'memroy': 3}\n")
    with pytest.raises(ValueError, match="memroy"):
        plan.machine_of(file)


def test_guests_are_spread_over_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRICKYARD_CACHE", str(tmp_path))
    ours = os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        had = []
        for _ in range(2 * len(ours)):
            stack.enter_context(um.one_processor())
            had.append(os.sched_getaffinity(0))
            os.sched_setaffinity(0, ours)
        assert sorted(had, key=min) == sorted([{number} for number in ours] * 2, key=min), "two on each"
    assert os.sched_getaffinity(0) == ours


def test_as_many_guests_run_as_their_loads_allow(tmp_path: Path) -> None:
    loads = {"a": 1.0, "b": 1.0, "c": 0.5, "d": 0.5}

    def job(name: str) -> guests.Job:
        def run() -> int:
            (tmp_path / name).touch()
            log(f"+{name}")
            while name in "ab" and not ((tmp_path / "a").exists() and (tmp_path / "b").exists()):
                time.sleep(0.01)  # both run at a time, or this never ends
            log(f"-{name}")
            return 0

        return guests.Job(name, run, loads[name])

    def log(line: str) -> None:
        with (tmp_path / "log").open("a") as out:
            out.write(f"{line}\n")

    assert set(guests.run([job(name) for name in loads], 2)) == set(loads)
    load = 0.0
    for line in (tmp_path / "log").read_text().splitlines():
        load += loads[line[1]] * (1 if line[0] == "+" else -1)
        assert load <= 2


def test_files_with_the_same_needs_share_a_start() -> None:
    files = [*sorted(plan.TESTS.glob("test_*.py")), *(ROOT / name for name in suites.ELSEWHERE["x86_64"])]
    starts = plan.starts(files)
    assert sum(len(start.files) for start in starts) == len(files)
    assert len({start.machine for start in starts}) == len(starts)
    assert starts[0].machine == Machine()


def test_long_files_are_divided_among_guests() -> None:
    files = sorted(plan.TESTS.glob("test_*.py"))
    usual = [start for start in plan.starts(files, 2) if start.machine == Machine()]
    assert {name for start in usual for name in start.files} == set(plan.starts(files)[0].files)
    seconds = [start.seconds for start in usual]
    assert 2 < len(usual) <= 4, "more than run at a time: who is done takes the next"
    assert max(seconds) - min(seconds) < max(suites.SECONDS.values()) / 2
    assert len(plan.starts(files[:1], 2)) == 1, "a start would cost more than it saves"


def test_each_part_of_a_long_file_runs_once() -> None:
    long = plan.TESTS / "test_lvm_agent.py"
    parts = [part for start in plan.starts([long], 2) for part in start.parts]
    name = long.relative_to(ROOT)
    assert sorted(parts) == [f"{name}={number}/{len(parts)}" for number in range(len(parts))]
    assert len(parts) > 1
    assert not plan.starts([long])[0].parts


pytest_plugins = ("pytester",)


@pytest.mark.parametrize(
    ("asked", "ran"),
    [
        ([], ["a0", "a1", "a2", "a3", "a4", "b0"]),
        (["test_a.py=0/2"], ["a0", "a2", "a4", "b0"]),
        (["test_a.py=1/3", "test_a.py=2/3"], ["a1", "a2", "a4", "b0"]),
    ],
)
def test_of_a_divided_file_only_its_part_runs(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, asked: list[str], ran: list[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makepyfile(
        test_a="".join(f"def test_a{number}(): print('ran a{number}')\n" for number in range(5)),
        test_b="def test_b0(): print('ran b0')\n",
    )
    options = [f"--part={each}" for each in asked]
    done = pytester.runpytest_subprocess("-s", "-q", "-p", "tests.kernel.bench.parts", *options)
    assert re.findall(r"ran (\w+)", done.stdout.str()) == ran


def test_several_guests_at_a_time_keep_their_lines_apart(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    def told(name: str, status: int) -> guests.Job:
        def run() -> int:
            print(f"{name} begins", flush=True)
            print("and has no end of line", end="", flush=True)
            if status == 3:
                raise ValueError("a guest that can not be started")
            return status

        return guests.Job(name, run)

    ended = guests.run([told("a", 0), told("b", 5), told("c", 3)], 2)
    assert ended == {"a": 0, "b": 5, "c": 1}
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert {"a| a begins", "a| and has no end of line", "b| b begins", "c| c begins"} <= set(lines)
    assert any(line.startswith("c| ") and "ValueError" in line for line in lines)


def test_a_guest_ends_with_the_one_who_started_it(tmp_path: Path) -> None:
    def never() -> int:
        (tmp_path / "pid").write_text(str(os.getpid()))
        print("here", flush=True)
        signal.pause()
        return 0

    def impatient() -> int:
        guests.run([guests.Job("never", never)], 1)
        return 0

    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            impatient()
        finally:
            os._exit(0)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_guest_that_would_run_nothing_is_not_started() -> None:
    files = [plan.TESTS / "test_bench.py", ROOT / suites.ELSEWHERE["x86_64"][0]]
    assert plan.chosen(files, "left_behind") == files[:1]
    assert plan.chosen(files, "test_bench or test_many_at_once") == files
    assert plan.chosen(files, "not left_behind") == files
    assert plan.chosen(files, "no_such_name") == []
    assert plan.quick(files[0])
    assert not plan.quick(plan.TESTS / "test_demo.py")


def test_an_image_is_made_once_and_only_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRICKYARD_CACHE", str(tmp_path))
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "image").write_text("whole")

    def fail(folder: Path) -> None:
        (folder / "image").write_text("half")
        raise place.BuildFailed("no room")

    with pytest.raises(place.BuildFailed):
        place.made("root", "k", fail)
    threads = [threading.Thread(target=place.made, args=("root", "k", make)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert (place.made("root", "k", make) / "image").read_text() == "whole"


def test_old_images_go_and_recent_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRICKYARD_CACHE", str(tmp_path))
    for key in "abcd":
        folder = place.made("root", key, lambda _: None)
        os.utime(folder, (1, 1) if key in "ab" else None)
    place.made("root", "e", lambda _: None)
    assert {path.name for path in place.cache().glob("root-*")} == {"root-c", "root-d", "root-e"}


def test_the_archive_holds_the_working_tree(tmp_path: Path) -> None:
    transfer.pack(tmp_path / "source.tar", "cpython-311", {"command": "true\n"})
    with tarfile.open(tmp_path / "source.tar") as archive:
        names = set(archive.getnames())
        here = archive.getmember(str(Path(__file__).relative_to(ROOT)))
    assert {".bench/command", "pyproject.toml", "agent/__init__.py", "tests/kernel/conftest.py"} <= names
    assert not [name for name in names if name.startswith(".venv") or name.startswith("build/")]
    assert here.uname == "root"
    assert here.mode & 0o444 == 0o444
    assert int(here.mtime) == int(Path(__file__).stat().st_mtime)


def test_what_comes_out_stays_below_its_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "results.tar"
    inside.mkdir()
    (inside / "junit.xml").write_text("<x/>")
    with tarfile.open(outside, "w") as archive:
        archive.add(inside / "junit.xml", "./junit.xml")
        archive.add(inside / "junit.xml", "../escaped")
    results = tmp_path / "results"
    results.mkdir()
    transfer.unpack(outside, results)
    assert [path.name for path in results.iterdir()] == ["junit.xml"]
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize(
    ("status", "ended", "expected"),
    [("0", "", 0), ("1", "", 1), ("", "it did not end within 3 s", 124), ("", "x", 125)],
)
def test_the_status_of_the_guest_is_passed_on(tmp_path: Path, status: str, ended: str, expected: int) -> None:
    (tmp_path / "console.log").write_text("last words\n")
    assert boot.judged(status, ended, tmp_path / "console.log", 3) == expected


def test_a_guest_that_does_not_end_is_ended() -> None:
    assert boot.watched(["sleep", "60"], 1) == "it did not end within 1 s"
    assert boot.watched(["true"], 60) == ""
    assert "sh ended with 3: no" in boot.watched(["sh", "-c", "echo no >&2; exit 3"], 60)
