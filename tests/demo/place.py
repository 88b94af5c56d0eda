"""Where the demo works: clear bytes in memory alone, all that processes write on a file system of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HOME_BYTES = 24 << 30
NEEDED_BYTES = 9 << 30
MEMORY_BYTES = 3 << 29
_PIECE = 16 << 20


class DemoFailed(Exception):
    """Something is not as it must be; the text says what."""


@dataclass(slots=True)
class Place:
    """`root` on a disk, `memory` on tmpfs; `home`, inside of `root`, is all that the site's processes write to."""

    tag: str
    root: Path
    memory: Path
    on_loop: bool = field(default=False)

    @classmethod
    def named(cls) -> Place:
        """Names that nobody else has; nothing is made yet."""
        tag = secrets.token_hex(4)
        base = Path(os.environ.get("BRICKYARD_DEMO_DIR", "/var/tmp"))
        return cls(tag, base / f"brickyard-demo-{tag}", Path("/dev/shm") / f"brickyard-demo-{tag}")

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def image(self) -> Path:
        return self.root / "home.ext4"

    @property
    def site(self) -> Path:
        return self.home / "site"

    @property
    def tmp(self) -> Path:
        return self.home / "tmp"

    def make_folders(self) -> None:
        self.root.mkdir(mode=0o711)
        self.home.mkdir(mode=0o755)
        shared = self.memory.parent
        if filesystem_of(shared) == "tmpfs" and shutil.disk_usage(shared).free >= MEMORY_BYTES:
            self.memory.mkdir(mode=0o700)
            return
        lacking = f"{shared} is no tmpfs with {MEMORY_BYTES >> 20} MiB free, and clear data must not lie on a disk"
        if os.geteuid() != 0:
            raise DemoFailed(lacking)
        self.memory = self.root / "memory"
        self.memory.mkdir(mode=0o700)
        failed = _run("mount", "-t", "tmpfs", "-o", f"mode=0700,size={2 * MEMORY_BYTES}", "tmpfs", str(self.memory))
        if failed:
            raise DemoFailed(f"{lacking}; another could not be mounted: {failed}")

    def build(self) -> str:
        """Mount the file system made for this; returns a sentence on where things lie."""
        free = shutil.disk_usage(self.root).free
        if free < NEEDED_BYTES:
            room = f"{self.root.parent} has {free >> 30} GiB free; the demo writes up to {NEEDED_BYTES >> 30} GiB"
            raise DemoFailed(f"{room}. Name another folder: BRICKYARD_DEMO_DIR=... make demo")
        why = self._mount() if os.geteuid() == 0 else "mounting needs root"
        self.tmp.mkdir(mode=0o1777)
        self.tmp.chmod(0o1777)
        if why:
            return f"all processes write to a plain folder below {self.root}, not to a file system of its own: {why}"
        self.on_loop = True
        return f"all processes write to an ext4 of their own in {self.image}"

    def _mount(self) -> str:
        """Empty when it is mounted, else why not."""
        os.truncate(_touched(self.image), HOME_BYTES)
        options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
        made = _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", options, str(self.image))
        if made:
            return made
        for direct in ("on", "off"):
            attach = ["losetup", "--find", "--show", f"--direct-io={direct}", str(self.image)]
            done = subprocess.run(attach, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                device = done.stdout.strip()
                failed = _run("mount", "-o", "noatime", device, str(self.home))
                # From now on the device goes when the file system does.
                _run("losetup", "-d", device)
                return failed
        return f"no loop device can be had ({done.stderr.strip()})"

    def unmount(self) -> None:
        if self.on_loop:
            deadline = time.monotonic() + 60
            while failed := _run("umount", str(self.home)):
                # Somebody who looks at all files of the machine (a search, a backup) may hold it for a moment.
                if time.monotonic() > deadline:
                    raise DemoFailed(f"the demo's file system is still in use: {failed}")
                time.sleep(0.1)
            self.loops_gone()

    def loops_gone(self) -> None:
        """The kernel frees the device of an unmounted file system a moment later."""
        deadline = time.monotonic() + 60
        while self.loops():
            if time.monotonic() > deadline:
                raise DemoFailed(f"loop devices stay: {self.loops()}")
            time.sleep(0.02)

    def loops(self) -> list[tuple[str, str]]:
        """(device, backing file) of loop devices on files of ours; a deleted file still counts."""
        found = []
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            try:
                backing = path.read_text().strip().removesuffix(" (deleted)")
            except OSError:
                continue
            if backing.startswith(f"{self.root}/"):
                found.append((f"/dev/{path.parts[3]}", backing))
        return found

    def mounts(self) -> list[str]:
        """Mount points of ours, in the order of mounting."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        points = (line.split()[4] for line in lines)
        return [point for point in points if f"{point}/".startswith(f"{self.root}/")]

    def search(self, patterns: Sequence[bytes]) -> tuple[int, list[str]]:
        """Bytes looked through, and where in them a pattern stands: in what is allocated of the unmounted image,
        else in all files of the plain folder."""
        files = [self.image] if self.on_loop else [path for path in self.home.rglob("*") if path.is_file()]
        pieces = [(path, start, stop) for path in files for start, stop in _allocated(path)]
        with ThreadPoolExecutor(4) as pool:
            hits = [hit for found in pool.map(lambda piece: _find(piece, patterns), pieces) for hit in found]
        return sum(stop - start for _, start, stop in pieces), hits


def filesystem_of(path: Path) -> str:
    """The type of the file system that `path` lies on."""
    best, kind = "", ""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        if (point == "/" or f"{path}/".startswith(f"{point}/")) and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def _allocated(path: Path) -> Iterator[tuple[int, int]]:
    """What holds data, in pieces of bounded size."""
    with path.open("rb") as file:
        fd, size, at = file.fileno(), path.stat().st_size, 0
        while at < size:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                return
            at = os.lseek(fd, start, os.SEEK_HOLE)
            for piece in range(start, at, _PIECE):
                yield piece, min(piece + _PIECE, at)


def _find(piece: tuple[Path, int, int], patterns: Sequence[bytes]) -> list[str]:
    """Hits of a piece; one that begins in it and ends in the next counts here."""
    path, start, stop = piece
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(fd, stop - start + max(map(len, patterns)) - 1, start)
    finally:
        os.close(fd)
    hits = []
    for pattern in patterns:
        at = data.find(pattern)
        while 0 <= at < stop - start:
            hits.append(f"{path.name}@{start + at}")
            at = data.find(pattern, at + 1)
    return hits


def _touched(path: Path) -> Path:
    path.touch(mode=0o600)
    return path


def _run(*argv: str) -> str:
    """Empty on success, else the tool's words."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"{argv[0]} is not installed"
    return "" if done.returncode == 0 else (done.stderr.strip() or f"{argv[0]} failed")
