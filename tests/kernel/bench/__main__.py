"""`make test-kernel`: run the kernel tests in guests, or one command in a guest.

python -m tests.kernel.bench                     all of tests/kernel
python -m tests.kernel.bench -k name             only tests of that name (make test-kernel K=name)
python -m tests.kernel.bench --smoke             only those marked `smoke` (part of make test)
python -m tests.kernel.bench --stock             all on Debian's own kernel, emulated; else only what needs a machine is
python -m tests.kernel.bench --arch s390x        those of tests/kernel/s390x, on a big-endian kernel
python -m tests.kernel.bench --arch dasd         those of tests/kernel/dasd, on the same kernel with real DASDs
python -m tests.kernel.bench --arch all          all three, as many guests at a time as the processors bear
python -m tests.kernel.bench --command 'lsblk'   look around in a guest
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from tests.kernel.bench import boot, guests, hercules, plan, python, root, s390x, s390x_python, suites, um, um_kernel
from tests.kernel.bench.machine import X86_64, Images, Machine
from tests.kernel.bench.place import ROOT, BuildFailed, Unavailable

_RESULTS = ROOT / "build" / "kernel"
_NOTHING_CHOSEN = 5  # pytest's exit status
_SECONDS = 2700
_FOLDERS = {"x86_64": ".", "s390x": "s390x", "dasd": "dasd"}
_UM = "um"  # how those of x86_64 run that need no emulated machine


def main() -> int:
    signal.signal(signal.SIGTERM, _end)
    given = _arguments()
    if os.environ.get("BRICKYARD_KERNEL") == "host" and not given.command:
        arch = "x86_64" if given.arch == "all" else given.arch
        return subprocess.call(_pytest(given, arch, [str(path) for path in _files(given, arch)]), cwd=ROOT)
    wanted = tuple(_FOLDERS) if given.arch == "all" else (given.arch,)
    if "x86_64" in wanted and not (given.smoke or given.stock):
        wanted = (_UM, *wanted)
    try:
        images = {arch: found for arch in wanted if (found := _images(arch, given)) is not None}
    except Unavailable as reason:
        print(f"kernel tests: SKIPPED, the bench can not be had here: {reason}")
        return 1
    except BuildFailed as error:
        print(f"kernel tests: the guest could not be built: {error}")
        return 1
    if given.command and images:
        machine = Machine(memory=given.memory, nics=given.nics)
        kind = _UM if _UM in images else given.arch
        return _boot(given, images[kind], machine, given.command, _RESULTS / "command")
    return _tests(given, images) if images else 0


def _end(*_: object) -> None:
    """A guest and its files go with us, also when we are told twice."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


def _boot(given: argparse.Namespace, images: Images, machine: Machine, command: str, results: Path) -> int:
    once = {"dasd": hercules.once, _UM: um.once}.get(images.arch.name, boot.once)
    return boot.run(images, machine, command, results, given.seconds, start=once)


def _images(arch: str, given: argparse.Namespace) -> Images | None:
    """None where they can not be had, which is said, and need not be."""
    try:
        return _had(arch)
    except Unavailable as reason:
        if arch == _UM:
            print(f"bench: all machines are emulated, as user-mode Linux can not be had here: {reason}")
            return None
        if not given.optional or "kernel" in os.environ.get("BRICKYARD_REQUIRE", "").split(","):
            raise
        print(f"kernel tests of {arch}: SKIPPED, the bench can not be had here: {reason}")
        return None


def _had(arch: str) -> Images:
    if arch == "dasd":
        return Images(hercules.ARCH, hercules.image(), s390x_python.image())
    if arch == "s390x":
        base = s390x.image()
        return Images(s390x.ARCH, base, s390x_python.image())
    base = root.image()
    if arch == _UM:
        um_kernel.image()
    return Images(um.ARCH if arch == _UM else X86_64, base, python.image(base))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.kernel.bench", description="Run the kernel tests in guests.")
    parser.add_argument("files", nargs="*", type=Path, help="test files instead of all")
    parser.add_argument("-k", dest="expression", default="", metavar="NAME", help="only tests that match, as in pytest")
    parser.add_argument("--arch", choices=(*_FOLDERS, "all"), default="x86_64", help="the processor (x86_64)")
    parser.add_argument("--smoke", action="store_true", help="only tests marked `smoke`")
    parser.add_argument("--optional", action="store_true", help="no failure where the bench can not be had")
    parser.add_argument("--stock", action="store_true", help="only Debian's own kernel, in emulated machines")
    parser.add_argument("--coverage", action="store_true", help="measure; leaves .coverage files in build/kernel")
    parser.add_argument("--command", default="", metavar="SHELL", help="run a command in a guest, no tests")
    parser.add_argument("--nics", type=int, default=0, help="network cards of the guest of --command")
    parser.add_argument("--memory", type=int, default=Machine().memory, help="MiB of the guest of --command")
    parser.add_argument("--record", action="store_true", help="note the outcomes for docs/reference/hardware.md")
    parser.add_argument("--guests", type=int, default=_at_once(), help=f"of a whole processor at a time ({_at_once()})")
    parser.add_argument("--seconds", type=int, default=_SECONDS, help=f"of one guest, at most ({_SECONDS})")
    given = parser.parse_args()
    if given.arch == "all" and (given.command or given.files):
        parser.error("a command, or test files by name, are for one processor: choose it by --arch")
    if given.guests < 1:
        parser.error("--guests: at least one")
    return given


def _at_once() -> int:
    """As many as processors, and as fit into two thirds of the free memory: a guest needs half of its own."""
    told = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(told["MemAvailable"].removesuffix("kB")) >> 10
    return max(1, min(os.cpu_count() or 1, int(free * um.LOAD * 4 / 3 / Machine().memory)))


def _files(given: argparse.Namespace, arch: str) -> list[Path]:
    if given.files:
        return [path.resolve() for path in given.files]
    own = sorted((plan.TESTS / _FOLDERS[arch]).glob("test_*.py"))
    elsewhere = suites.ELSEWHERE[arch]
    files = own if given.smoke else own + [ROOT / name for name in elsewhere]
    if given.smoke:
        return [path for path in files if "mark.smoke" in path.read_text()]
    return plan.chosen(files, given.expression) if given.expression else [path for path in files if plan.quick(path)]


def _its(given: argparse.Namespace, arch: str, images: dict[str, Images]) -> list[Path]:
    """The files for this kind of guest."""
    found = _files(given, "x86_64" if arch == _UM else arch)
    if _UM not in images or arch not in {_UM, "x86_64"}:
        return found
    return [path for path in found if plan.machine_of(path).stock == (arch != _UM)]


def _divided_for(given: argparse.Namespace, arch: str) -> int:
    """Among how many guests that run at a time; a start of one with DASDs costs as much as half of its tests."""
    if given.smoke or arch == "dasd":
        return 1
    return int(given.guests / um.LOAD) if arch == _UM else given.guests


def _tests(given: argparse.Namespace, images: dict[str, Images]) -> int:
    starts = {
        f"{arch}-{number}": (arch, start)
        for arch in images
        for number, start in enumerate(plan.starts(_its(given, arch, images), _divided_for(given, arch)))
    }
    # Those that need a whole processor first: they would not fit in while others come and go.
    costly = sorted(starts, key=lambda name: (starts[name][0] == _UM, -starts[name][1].seconds))
    # One emulated processor needs no atomic instructions and takes a tenth less; a second pays only where it is free.
    processors = 1 if min(given.guests, len(starts)) > 1 else Machine().processors

    def job(name: str) -> guests.Job:
        arch, start = starts[name]
        machine = replace(start.machine, processors=processors)
        its = replace(start, machine=machine)
        return guests.Job(name, lambda: _start(given, name, arch, images[arch], its), um.LOAD if arch == _UM else 1.0)

    ended = guests.run([job(name) for name in costly], given.guests)
    for arch in reversed(images) if given.record else ():  # a suite that runs on several counts by the first of them
        reports = [_RESULTS / name / "junit.xml" for name, (its, _) in starts.items() if its == arch]
        if there := [path for path in reports if path.exists()]:
            subprocess.run([sys.executable, ROOT / "docs" / "hardware.py", *there], check=True)
    ran = {name: status for name, status in ended.items() if status != _NOTHING_CHOSEN}
    if not ran:
        print(f"kernel tests: none matches {given.expression or given.files or 'the choice'}")
        return _NOTHING_CHOSEN
    for name, status in ran.items():
        how = "passed" if status == 0 else f"ended with {status}"
        print(f"kernel tests: {name}: {how}: {guests.reported(_RESULTS / name)}")
    return max(ran.values(), key=abs)


def _start(given: argparse.Namespace, name: str, arch: str, images: Images, start: plan.Start) -> int:
    begun = time.monotonic()
    print(f"bench: a guest with {start.machine} for {len(start.files)} files, about {start.seconds} s", flush=True)
    parts = [f"--part={part}" for part in start.parts]
    command = shlex.join(_pytest(given, arch, [*parts, *start.files], guest=True))
    status = _boot(given, images, start.machine, command, _RESULTS / name)
    print(f"bench: that guest ended with {status} after {boot.took(begun)}; results in {_RESULTS / name}", flush=True)
    return status


def _pytest(given: argparse.Namespace, arch: str, files: list[str], *, guest: bool = False) -> list[str]:
    python_ = ".venv/bin/python" if guest else sys.executable
    out = "/run/brickyard-bench" if guest else str(_RESULTS / "host")
    measured = ["-m", "coverage", "run", f"--data-file={out}/.coverage", "--source=agent,coordinator"]
    command = [python_, *(measured if given.coverage else []), "-m", "pytest", "-v", "-ra", "--durations=10"]
    command += ["-p", "no:cacheprovider", "-p", "tests.kernel.bench.nothing_left", "--color=no"]
    command += ["-p", "tests.kernel.bench.parts"]
    command += ["--hypothesis-profile=emulated"] if guest else []
    command += ["-o", "timeout=600", f"--junitxml={out}/junit.xml"]
    if arch == "s390x":
        command += [f"--deselect={name}" for name in suites.NEED_NUMPY]
    if given.smoke:
        command += ["-m", "smoke"]
    elif not given.expression and not given.files:
        command += ["-m", "not slow"]  # those take longer than all others together, and are run by name
    if given.expression:
        command += ["-k", given.expression]
    return [*command, *files]


if __name__ == "__main__":
    sys.exit(main())
