"""One start of the guest: the source goes in as an archive, output comes out while it runs, then files and status."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.bench.place import ROOT

TIMED_OUT, DIED = 124, 125
_BYTECODE = "cpython-311"  # of the guest's Python
_GRACE_S = 60  # the guest ends itself first and says what hangs
_APPEND = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr audit=0 random.trust_cpu=on tsc=reliable net.ifnames=0"
    " hung_task_timeout_secs=300"
)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a guest has: MiB of memory, MiB of each empty disk, network cards on one wire."""

    memory: int = 2560
    disks: tuple[int, ...] = (2048, 1024, 512)
    nics: int = 0

    @property
    def name(self) -> str:
        return f"m{self.memory}-d{'-'.join(map(str, self.disks)) or 0}-n{self.nics}"


@dataclass(frozen=True, slots=True)
class Images:
    """`base` holds vmlinux, initrd and root.img."""

    base: Path
    python: Path


def pack_source(to: Path) -> None:
    """What git knows or would know of the working tree, with the bytecode beside it, as an archive."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    for path in [Path(name) for name in names if name.endswith(".py")]:
        compiled = path.parent / "__pycache__" / f"{path.stem}.{_BYTECODE}.pyc"
        if (ROOT / compiled).is_file():
            names.append(str(compiled))

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mode |= 0o444
        member.mode &= ~0o022
        return member

    with tarfile.open(to, "w") as archive:
        for name in names:
            archive.add(ROOT / name, name, recursive=False, filter=plain)


def run(images: Images, machine: Machine, command: str, results: Path, seconds: int) -> int:
    """Run the command in a new guest; returns its status, TIMED_OUT, or DIED.

    `results` then holds what the command left in $BRICKYARD_OUT, and `console.log` of the kernel.
    """
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="brickyard-bench-") as name:
        work = Path(name)
        (work / "command").write_text(f"{command}\n")
        (work / "seconds").write_text(f"{seconds}\n")
        pack_source(work / "source")
        for index, size in enumerate(machine.disks):
            with (work / f"disk{index}").open("wb") as file:
                file.truncate(size << 20)
        argv = [*_machine(images, machine, work), "-serial", f"file:{results / 'console.log'}"]
        ended = _watched(argv, seconds + _GRACE_S)
        _unpack(work / "results", results)
        status = (work / "status").read_text().strip() if (work / "status").exists() else ""
        return _judged(status, ended, results, seconds)


def _machine(images: Images, machine: Machine, work: Path) -> list[str]:
    def disk(name: str, path: Path, more: str = "") -> list[str]:
        drive = f"file={path},format=raw,if=none,id={name},cache=unsafe{more}"
        return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name},serial=brickyard-{name}"]

    argv = [
        "qemu-system-x86_64", "-machine", "pc,usb=off", "-accel", "tcg,thread=multi,tb-size=512",
        "-cpu", "max,la57=off",
        "-smp", "2", "-m", str(machine.memory), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-kernel", str(images.base / "vmlinux"), "-initrd", str(images.base / "initrd"), "-append", _APPEND,
        "-fw_cfg", f"name=opt/brickyard/command,file={work / 'command'}",
        "-fw_cfg", f"name=opt/brickyard/seconds,file={work / 'seconds'}", "-device", "virtio-rng-pci",
        *disk("root", images.base / "root.img", ",snapshot=on"), *disk("python", images.python, ",readonly=on"),
        *disk("source", work / "source", ",readonly=on"), "-device", "virtio-serial-pci",
    ]  # fmt: skip
    for port, path in (("output", "/dev/stdout"), ("status", work / "status"), ("results", work / "results")):
        argv += ["-chardev", f"file,id={port},path={path}", "-device", f"virtserialport,chardev={port},name={port}"]
    for index in range(len(machine.disks)):
        argv += disk(f"disk{index}", work / f"disk{index}", ",discard=unmap")
    for index in range(machine.nics):
        argv += ["-netdev", f"hubport,id=n{index},hubid=0"]
        argv += ["-device", f"e1000e,netdev=n{index},mac=52:54:00:00:00:{index + 1:02x}"]
    return argv


def _watched(argv: list[str], seconds: int) -> str:
    """Run qemu, pass its output on; returns "" or why it had to be ended."""
    env = os.environ | {"TMPDIR": os.environ.get("TMPDIR", "/var/tmp")}  # the root's throw-away layer may be large
    with subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as qemu:
        assert qemu.stdout is not None
        assert qemu.stderr is not None
        said: list[bytes] = []
        errors = threading.Thread(target=lambda: said.append(qemu.stderr.read()), daemon=True)  # type: ignore[union-attr]
        errors.start()
        killed = threading.Event()

        def give_up() -> None:
            killed.set()
            qemu.kill()

        timer = threading.Timer(seconds, give_up)
        timer.start()
        try:
            while chunk := qemu.stdout.read1(65536):  # type: ignore[attr-defined]
                sys.stdout.buffer.write(chunk)
                sys.stdout.flush()
        except KeyboardInterrupt:
            qemu.kill()
            raise
        finally:
            timer.cancel()
        code = qemu.wait()
        errors.join()
    if killed.is_set():
        return f"it did not end within {seconds} s"
    return f"qemu ended with {code}: {b''.join(said).decode(errors='replace').strip()}" if code else ""


def _unpack(archive: Path, to: Path) -> None:
    """Plain files alone, below `to`; an archive that was cut off gives what it holds."""
    if not archive.exists() or not archive.stat().st_size:
        return
    try:
        with tarfile.open(archive) as files:
            for member in files:
                path = (to / member.name).resolve()
                content = files.extractfile(member) if member.isfile() and to.resolve() in path.parents else None
                if content is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content.read())
    except (tarfile.TarError, EOFError) as error:
        print(f"bench: the files of the guest came out broken: {error}", flush=True)


def _judged(status: str, ended: str, results: Path, seconds: int) -> int:
    console = results / "console.log"
    lines = console.read_text(errors="replace").splitlines() if console.exists() else []
    for line in [
        line for line in lines if re.search(r"\b(BUG|Oops|WARNING: CPU|KASAN|soft lockup|blocked for more)\b", line)
    ][:5]:
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
