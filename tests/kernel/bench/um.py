"""The guest that is no emulated machine: user-mode Linux, whose programs run on this machine's own processor.

Its tests take half of the time of an emulated one. It has no hardware: one processor, network cards that are virtual.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tests.kernel.bench import boot, place, um_kernel
from tests.kernel.bench.machine import X86_64, Images, Machine

ARCH = replace(X86_64, name="um", qemu=(), bus="ubd", console=(), options="quiet panic=-1 audit=0 random.trust_cpu=on")
LOAD = 1 / 3  # of a processor: such a guest waits most of its time
_SEATS = 4  # guests on one processor, of all runs
_MEMORY = Path("/dev/shm")


def once(images: Images, machine: Machine, command: str, results: Path, seconds: int) -> int:
    """As `boot.once`, in user-mode Linux."""
    return boot.once(images, machine, command, results, seconds, start=_start)


def _start(images: Images, machine: Machine, work: Path, console: Path, seconds: int) -> str:
    with console.open("wb") as log, one_processor():
        argv = _arguments(images, machine, work, log.fileno())
        return boot.watched(argv, seconds, (log.fileno(),), _roomy(machine))


@contextmanager
def one_processor() -> Iterator[None]:
    """One with the fewest other guests: the kernel and its programs wake each other all the time, which takes three
    times as long across processors."""
    ours = os.sched_getaffinity(0)
    with ExitStack() as stack:
        for name, number in [(f"{number}-{seat}", number) for seat in range(_SEATS) for number in sorted(ours)]:
            lock = stack.enter_context((place.cache() / f"processor-{name}.lock").open("w"))
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.sched_setaffinity(0, {number})
                break
        try:
            yield
        finally:
            os.sched_setaffinity(0, ours)


def _roomy(machine: Machine) -> str:
    """Where the guest's memory, an unnamed file, is no disk's; empty where there is no room for it."""
    room = os.statvfs(_MEMORY)
    return str(_MEMORY) if room.f_bavail * room.f_frsize > 2 * machine.memory << 20 else ""


def _arguments(images: Images, machine: Machine, work: Path, console: int) -> list[str]:
    kernel = um_kernel.image()
    disks = [f"ubd{2 + index}t={work / f'disk{index}'}" for index in range(len(machine.disks))]
    return [
        str(kernel / "linux"), f"mem={machine.memory}M", f"umid={work.name}", f"uml_dir={work}",
        f"ubd0={work / 'root'},{images.base / 'root.img'}", f"ubd1r={images.python}", *disks,
        "con=null", "con1=null,fd:1", f"ssl0=null,fd:{console}", "console=ttyS0", "root=/dev/ubda", "rw",
        "rootfstype=ext4", "init=/sbin/bench-init", *images.arch.options.split(),
        f"bench_shared={work}", f"bench_modules={kernel / 'modules'}", f"bench_nics={machine.nics}",
    ]  # fmt: skip
