"""The bench with real DASDs: the big-endian guest under hercules, ECKD 3390s, unformatted and ignored at first.

All that goes in and comes out are plain files that the guest sees as disks of fixed blocks. A test orders what happens
to the machine (`detach 0121`) through one of them, see `tests.kernel.support.hercules`.
"""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.kernel.bench import boot, kernel, place, root, s390x, tools, transfer
from tests.kernel.bench.machine import Images, Machine

HERE = Path(__file__).parent
ARCH = replace(
    s390x.ARCH,
    name="dasd",
    qemu=(),
    options="conmode=3215 condev=0x0009 console=ttyS0 audit=0 random.trust_cpu=on quiet panic=-1"
    " cio_ignore=all,!0.0.0009,!0.0.0200-0.0.0206",
)
DASDS = ("0120", "0121", "0122")
_CYLINDERS = "100"  # of 720 KiB
_TOOLS = {"hercules": "hercules", "dasdinit": "hercules"}
_TO_REACH_ROOT = ("dasd_mod", "dasd_fba_mod", "ext4", "crc32c_generic")
_SOURCES = ("guest-init-dasd", "initrd-init-dasd", "hercules.py", "kernel.py")
_BLOCK, _MIB = 4096, 1 << 20
_MEMORY = 1536
_LOADED_AT = {"kernel": 0x0, "initrd": 0x02000000, "parm": 0x10480, "initrd.loc": 0x10408}
# Files of the guest's disks by device number, and the bytes of those that are empty at first.
_DISKS = {"0200": "root", "0201": "python", "0202": "source", "0203": "output", "0204": "results", "0205": "status",
          "0206": "machine"}  # fmt: skip
_EMPTY = {"output": 32 * _MIB, "results": 64 * _MIB, "status": _MIB, "machine": _MIB}
_CONFIG = f"""CPUSERIAL 012345
CPUMODEL 2097
MAINSIZE {_MEMORY}
NUMCPU 2
MAXCPU 2
ARCHMODE z/Arch
OSTAILOR QUIET
PANRATE SLOW
HERCPRIO 10
CPUPRIO 15
DEVPRIO 10
TODPRIO 10
0009 3215-C /
"""
_ORDERS = """hao tgt .*(SIGP Stop|isabled wait|HHCSC003E).*
hao cmd exit
ipl boot.ins
"""
_OFF_S = 60


def image() -> Path:
    """The folder with `vmlinux`, `initrd` and `root.img`, made of those of the other big-endian guest."""
    root.need(_TOOLS)
    base = s390x.image()
    key = place.key_of(base.name, *(HERE / name for name in _SOURCES))
    return place.made("dasd", key, lambda folder: _make(folder, base))


def _make(folder: Path, base: Path) -> None:
    with tools.step("the start of the guest with DASDs"):
        for name in ("vmlinux", "root.img", "kernel-version"):
            os.link(base / name, folder / name)
        init = (HERE / "initrd-init-dasd").read_text().replace("@GUEST_INIT@", (HERE / "guest-init-dasd").read_text())
        s390x._let_foreign_programs_run()
        kernel.write_initrd(folder, base / "root", init, _TO_REACH_ROOT, base / "busybox")
        packed = folder / "initrd"
        packed.write_bytes(gzip.decompress(packed.read_bytes()))  # to unpack it would cost the guest more


def once(images: Images, machine: Machine, command: str, results: Path, seconds: int) -> int:
    """As `boot.once`, under hercules; the machine is always the same one."""
    with tempfile.TemporaryDirectory(prefix="brickyard-dasd-", dir=os.environ.get("TMPDIR", "/var/tmp")) as name:
        work, console = Path(name), results / "console.log"
        _lay_out(images, work, {"command": f"{command}\n", "seconds": f"{seconds}\n"})
        ended = _run(work, console, seconds + _OFF_S)
        transfer.unpack(work / "results", results)
        status = (work / "status").read_bytes()[:_BLOCK].strip(b"\0\n").decode(errors="replace")
        return boot.judged(status, ended, console, seconds)


def _lay_out(images: Images, work: Path, order: dict[str, str]) -> None:
    tools.run("cp", "--sparse=always", "--reflink=auto", images.base / "root.img", work / "root")
    tools.run("cp", "--sparse=always", "--reflink=auto", images.python, work / "python")
    transfer.pack(work / "source", images.arch.bytecode, order)
    os.truncate(work / "source", -(-(work / "source").stat().st_size // _BLOCK) * _BLOCK)
    for name, size in _EMPTY.items():
        with (work / name).open("wb") as file:
            file.truncate(size)
    for number in DASDS:
        tools.run("dasdinit", "-lfs", "-r", f"dasd.{number}", "3390", _CYLINDERS, cwd=work)
    # Real files beside the list of them: the emulator follows no links.
    tools.run("cp", images.base / "vmlinux", work / "kernel")
    tools.run("cp", images.base / "initrd", work / "initrd")
    (work / "parm").write_bytes(images.arch.options.encode() + b"\0")
    size = (work / "initrd").stat().st_size
    (work / "initrd.loc").write_bytes(struct.pack(">QQ", _LOADED_AT["initrd"], size))
    loads = "".join(f"{name} 0x{at:08x}\n" for name, at in _LOADED_AT.items())
    (work / "boot.ins").write_text(f"* boot\n{loads}")
    disks = [f"{number} 9336 {name}" for number, name in _DISKS.items()]
    disks += [f"{number} 3390 dasd.{number}" for number in DASDS]
    (work / "config").write_text(_CONFIG + "\n".join(disks) + "\n")
    (work / "orders").write_text(_ORDERS)


def _run(work: Path, console: Path, seconds: int) -> str:
    """Until the machine is off; "" or why it had to be ended. Passes on what the guest says, and does its orders."""
    argv = ["setpriv", "--pdeathsig", "KILL", "--", "hercules", "-d", "-f", "config", "EXTERNALGUI"]
    env = os.environ | {"HERCULES_RC": "orders"}
    end = time.monotonic() + seconds
    said, asked = _Written(work / "output"), _Written(work / "machine")
    with (
        console.open("wb") as log,
        subprocess.Popen(
            argv, cwd=work, env=env, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.DEVNULL
        ) as emulator,
    ):
        assert emulator.stdin is not None
        try:
            while emulator.poll() is None and time.monotonic() < end:
                _pass_on(said)
                if orders := asked.more():
                    emulator.stdin.write(orders)
                    emulator.stdin.flush()
                time.sleep(0.2)
            _pass_on(said)
        finally:
            late = emulator.poll() is None
            emulator.kill()
    return f"it did not end within {seconds} s" if late else ""


def _pass_on(said: _Written) -> None:
    sys.stdout.buffer.write(said.more())
    sys.stdout.flush()


class _Written:
    """A disk that the guest writes text to from its start on; the rest is zeros."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0

    def more(self) -> bytes:
        """What was written since the last time."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            found = file.read(_MIB).partition(b"\0")[0]
        self._read += len(found)
        return found
