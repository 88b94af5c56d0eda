"""One start of the guest: the source goes in as an archive, output comes out while it runs, then files and status."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.kernel.bench import transfer
from tests.kernel.bench.machine import Images, Machine, arguments

TIMED_OUT, DIED = 124, 125
_READY = "bench: ready"  # guest-init says so on the console before it starts the command
_STARTS = 3
Once = Callable[[Images, Machine, str, Path, int], int]
Start = Callable[[Images, Machine, Path, Path, int], str]
_GRACE_S = 60  # the guest ends itself first and says what hangs
_COMPLAINTS = re.compile(r"\b(BUG|Oops|WARNING: CPU|soft lockup|blocked for more than)\b")


def run(images: Images, machine: Machine, command: str, results: Path, seconds: int, *, start: Once) -> int:
    """Run the command in a new guest; returns its status, TIMED_OUT, or DIED.

    A guest that died before it was ready is started again: emulation of a whole machine is not always faithful.
    `results` then holds what the command left in $BRICKYARD_OUT, and `console.log` of the kernel.
    """
    results.mkdir(parents=True, exist_ok=True)
    (results / "junit.xml").unlink(missing_ok=True)
    console = results / "console.log"
    for left in reversed(range(_STARTS)):
        status = start(images, machine, command, results, seconds)
        if status != DIED or not left or _READY in console.read_text(errors="replace"):
            break
        print("bench: it never was ready; starting another one", flush=True)
    return status


def once(
    images: Images, machine: Machine, command: str, results: Path, seconds: int, *, start: Start | None = None
) -> int:
    """One guest from its start to its end. `start` runs it with what lies in a folder, and tells why it was ended."""
    with tempfile.TemporaryDirectory(prefix="brickyard-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        work = Path(name)
        transfer.pack(work / "source", images.arch.bytecode, {"command": f"{command}\n", "seconds": f"{seconds}\n"})
        for index, size in enumerate(machine.disks):
            with (work / f"disk{index}").open("wb") as file:
                file.truncate(size << 20)
        console = results / "console.log"
        console.unlink(missing_ok=True)
        ended = (start or _emulated)(images, machine, work, console, seconds + _GRACE_S)
        transfer.unpack(work / "results", results)
        status = (work / "status").read_text().strip() if (work / "status").exists() else ""
        return judged(status, ended, console, seconds)


def _emulated(images: Images, machine: Machine, work: Path, console: Path, seconds: int) -> str:
    return watched(arguments(images, machine, work, console), seconds)


def watched(argv: list[str], seconds: int, passed: tuple[int, ...] = (), folder: str = "") -> str:
    """Run the guest, pass its output on; returns "" or why it had to be ended, or what it complained of.

    `passed` are descriptors that it has, too; `folder` is where it puts what is large, if not where all do.
    """
    env = os.environ | {"TMPDIR": folder or os.environ.get("TMPDIR", "/var/tmp")}
    argv = ["setpriv", "--pdeathsig", "KILL", "--", *argv]  # it never outlives us
    killed = threading.Event()
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(argv, stdin=null, stdout=pipe, stderr=said, env=env, pass_fds=passed) as guest,
    ):

        def give_up() -> None:
            killed.set()
            guest.kill()

        assert guest.stdout is not None
        timer = threading.Timer(seconds, give_up)
        timer.start()
        try:
            while chunk := os.read(guest.stdout.fileno(), 65536):
                sys.stdout.buffer.write(chunk)
                sys.stdout.flush()
            code = guest.wait()
        finally:
            timer.cancel()
            guest.kill()
        said.seek(0)
        if killed.is_set():
            return f"it did not end within {seconds} s"
        return f"{argv[4]} ended with {code}: {said.read().decode(errors='replace').strip()}" if code else ""


def judged(status: str, ended: str, console: Path, seconds: int) -> int:
    """The status to pass on; what went wrong is said, with the end of the console."""
    lines = console.read_text(errors="replace").splitlines() if console.exists() else []
    for line in [line for line in lines if _COMPLAINTS.search(line)][:5]:
        print(f"bench: the guest's kernel says: {line.strip()}", flush=True)
    if status == str(TIMED_OUT):
        print(f"bench: ended after {seconds} s; what hung is told in {console}", flush=True)
    elif not status.isdigit():
        print(f"bench: the guest died ({ended or 'no status'}); the end of {console}:", flush=True)
        print("\n".join(lines[-25:]), flush=True)
        return TIMED_OUT if "did not end" in ended else DIED
    return int(status)


def took(since: float) -> str:
    return f"{time.monotonic() - since:.0f} s"
