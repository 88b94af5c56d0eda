"""The emulated machines: what a guest has, and how qemu is told."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """What a guest has: MiB of memory, MiB of each empty disk, network cards on one wire, processors.

    `stock`: it must be Debian's own kernel, in an emulated machine.
    """

    memory: int = 2560
    disks: tuple[int, ...] = (2048, 1024, 512)
    nics: int = 0
    processors: int = 2
    stock: bool = False

    @property
    def name(self) -> str:
        return f"m{self.memory}-d{'-'.join(map(str, self.disks)) or 0}-n{self.nics}"


@dataclass(frozen=True, slots=True)
class Arch:
    """One processor: qemu's arguments, the bus of its virtio devices, the console's device, the kernel's options."""

    name: str
    qemu: tuple[str, ...]
    bus: str
    console: tuple[str, ...]
    options: str
    bytecode: str  # of the guest's Python


@dataclass(frozen=True, slots=True)
class Images:
    """`base` holds vmlinux, initrd and root.img."""

    arch: Arch
    base: Path
    python: Path


# What is dear to emulate and no test needs: copies byte by byte, wide registers (of which each switch saves all), and
# guards of the kernel's memory. Without them the same work takes some two thirds of the time.
_CHEAP = "max,la57=off,erms=off,fsrm=off,avx=off,avx2=off,smap=off,smep=off,pku=off"
_OPTIONS = "quiet panic=-1 audit=0 random.trust_cpu=on net.ifnames=0"
X86_64 = Arch(
    "x86_64",
    ("qemu-system-x86_64", "-machine", "pc,usb=off", "-cpu", _CHEAP),
    "pci",
    ("-serial", "chardev:console"),
    f"console=ttyS0 {_OPTIONS} mitigations=off nokaslr no_timer_check tsc=reliable transparent_hugepage=never",
    "cpython-311",
)


def arguments(images: Images, machine: Machine, work: Path, console: Path) -> list[str]:
    """The command line; the guest's ports are files in `work`, its output is qemu's own."""
    arch = images.arch

    def disk(name: str, path: Path, more: str = "", place: str = "") -> list[str]:
        drive = f"file={path},format=raw,if=none,id={name},cache=unsafe{more}"
        return ["-drive", drive, "-device", f"virtio-blk-{arch.bus},drive={name},serial=brickyard-{name}{place}"]

    # Where the processor's own virtualisation works, as on most developers' machines, it is some ten times quicker.
    native = os.environ.get("BRICKYARD_KVM") == "1"
    argv = [
        *arch.qemu, *(("-accel", "kvm", "-cpu", "host") if native else ("-accel", "tcg,thread=multi,tb-size=512")),
        "-smp", str(machine.processors), "-m", str(machine.memory),
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-kernel", str(images.base / "vmlinux"), "-initrd", str(images.base / "initrd"), "-append", arch.options,
        "-chardev", f"file,id=console,path={console}", *arch.console, "-device", f"virtio-rng-{arch.bus}",
        # Guests of the other kind have locks on both, which nobody writes to.
        *disk("root", images.base / "root.img", ",snapshot=on,file.locking=off"),
        *disk("python", images.python, ",readonly=on,file.locking=off"),
        *disk("source", work / "source", ",readonly=on"), "-device", f"virtio-serial-{arch.bus}",
    ]  # fmt: skip
    for port, path in (("output", "/dev/stdout"), ("status", work / "status"), ("results", work / "results")):
        argv += ["-chardev", f"file,id={port},path={path}", "-device", f"virtserialport,chardev={port},name={port}"]
    for index in range(len(machine.disks)):
        # Known device numbers, so that a test can name the disk that it takes away.
        place = f",devno=fe.0.{0x1000 + index:04x}" if arch.bus == "ccw" else ""
        argv += disk(f"disk{index}", work / f"disk{index}", ",discard=unmap", place)
    for index in range(machine.nics):
        argv += ["-netdev", f"hubport,id=n{index},hubid=0"]
        argv += ["-device", f"e1000e,netdev=n{index},mac=52:54:00:00:00:{index + 1:02x}"]
    return argv
