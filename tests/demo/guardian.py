"""Runs the story in a process of its own and sweeps behind it: no process, device, mount or file is left.

Ctrl-C reaches this process alone (the story has a session of its own). Nothing has to be noted on the way for the
sweeping: processes are found as our descendants (we adopt orphans), devices and mounts by the folder they stand on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from demo.place import DemoFailed, Place

_PR_SET_CHILD_SUBREAPER = 36
_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PRODUCT_PATHS = ("/var/lib/brickyard-dev", "/var/lib/brickyard", "/var/lib/brickyard-coordinator", "/run/brickyard")
INTERRUPTED = 130


def main() -> int:
    """Returns the exit code: the story's, 130 when stopped, 1 when something had to be swept after a good story."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOP, signal.SIGCHLD})
    before = product_paths()
    place = Place.named()
    code = 1
    try:
        place.make_folders()
        code = _watch(_fork_story(place))
    except (DemoFailed, OSError) as failure:
        sys.stderr.write(f"demo: FAILED: {failure}\n")
    finally:
        found = sweep(place)
        found += sorted(product_paths() - before)
        found += left_over(place)
        if found and code == 0:
            sys.stderr.write("demo: left behind: " + "; ".join(found) + "\n")
            code = 1
    if code == 0:
        print("Nothing is left: no process, loop device, mount or file of the demo.", flush=True)
    return code


def _fork_story(place: Place) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        for number in _STOP:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        os.environ["BRICKYARD_DEMO"] = place.tag
        from demo.story import tell

        code = tell(place)
    except BaseException:  # noqa: BLE001 - the child must not run on in its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _watch(story: int) -> int:
    """Wait for the story's end or for a signal to stop."""
    while True:
        number = signal.sigwait({*_STOP, signal.SIGCHLD})
        if number in _STOP:
            sys.stderr.write("\ndemo: stopped; cleaning up.\n")
            return INTERRUPTED
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 1
            if pid == 0:
                break
            if pid == story:
                return os.waitstatus_to_exitcode(status)


def sweep(place: Place) -> list[str]:
    """Remove all that the story made, by looking at what is there; returns what a good story would not have left."""
    found = [f"process {line}" for line in _end_descendants()]
    found += [f"mapping {name}" for name in _close_mappings(place)]
    for device, backing in place.loops():
        if backing != str(place.image):
            found.append(f"{device} on {backing}")
        _quietly("losetup", "-d", device)
    deadline = time.monotonic() + 60
    while place.mounts() and time.monotonic() < deadline:
        for mount in reversed(place.mounts()):
            _quietly("umount", mount)
    for device, _ in place.loops():
        _quietly("losetup", "-d", device)
    if not place.mounts():
        for folder in (place.root, place.memory):
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(folder)
    return found


def left_over(place: Place) -> list[str]:
    """What is there although it was swept."""
    found = [f"mount {mount}" for mount in place.mounts()] + [f"loop device {device}" for device, _ in place.loops()]
    found += [str(path) for path in (place.root, place.memory) if path.exists()]
    return found + [f"process {pid}" for pid in _marked(place.tag)]


def product_paths() -> set[str]:
    """Where the product would write by default; the demo tells it to write elsewhere."""
    return {path for path in _PRODUCT_PATHS if Path(path).exists()}


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, deepest first."""
    below: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                below.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    level = below.get(pid, [])
    while level:
        found = level + found
        level = [child for each in level for child in below.get(each, [])]
    return found


def _end_descendants() -> list[str]:
    """Kill until there are none; returns the command lines of what was there (zombies aside)."""
    found: list[str] = []
    while True:
        for pid in descendants(os.getpid()):
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if command and command not in found:
                    found.append(command[:80])
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return found


def _close_mappings(place: Place) -> Iterator[str]:
    loops = {Path(device).name for device, _ in place.loops()}
    for mapping in Path("/sys/block").glob("dm-*"):
        if loops & {below.name for below in (mapping / "slaves").glob("*")}:
            name = (mapping / "dm" / "name").read_text().strip()
            yield name
            _quietly("cryptsetup", "close", name)


def _quietly(*argv: str) -> None:
    """What a tool could not do shows in what is left."""
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(argv, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _marked(tag: str) -> Iterator[int]:
    """Processes, wherever they hang, that inherited the mark of this demo."""
    mark = f"BRICKYARD_DEMO={tag}".encode()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    yield int(entry)
