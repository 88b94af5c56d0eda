"""`make test-kernel`: run the kernel tests in guests, or one command in a guest.

python -m tests.kernel.bench                     all of tests/kernel
python -m tests.kernel.bench -k name             only tests of that name (make test-kernel K=name)
python -m tests.kernel.bench --smoke             only those marked `smoke` (part of make test)
python -m tests.kernel.bench --arch s390x        those of tests/kernel/s390x, on a big-endian kernel
python -m tests.kernel.bench --arch dasd         those of tests/kernel/dasd, on the same kernel with real DASDs
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
from pathlib import Path

from tests.kernel.bench import boot, hercules, plan, python, root, s390x, s390x_python, suites
from tests.kernel.bench.machine import X86_64, Images, Machine
from tests.kernel.bench.place import ROOT, BuildFailed, Unavailable

_RESULTS = ROOT / "build" / "kernel"
_NOTHING_CHOSEN = 5  # pytest's exit status
_SECONDS = 2700
_FOLDERS = {"x86_64": ".", "s390x": "s390x", "dasd": "dasd"}


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a guest and its files go with us
    given = _arguments()
    if os.environ.get("BRICKYARD_KERNEL") == "host" and not given.command:
        return subprocess.call(_pytest(given, [str(path) for path in _files(given)]), cwd=ROOT)
    try:
        images = _images(given)
    except Unavailable as reason:
        print(f"kernel tests: SKIPPED, the bench can not be had here: {reason}")
        required = not given.optional or "kernel" in os.environ.get("BRICKYARD_REQUIRE", "").split(",")
        return 1 if required else 0
    except BuildFailed as error:
        print(f"kernel tests: the guest could not be built: {error}")
        return 1
    if given.command:
        machine = Machine(memory=given.memory, nics=given.nics)
        return _boot(given, images, machine, given.command, _RESULTS / "command")
    return _tests(given, images)


def _boot(given: argparse.Namespace, images: Images, machine: Machine, command: str, results: Path) -> int:
    once = hercules.once if given.arch == "dasd" else None
    return boot.run(images, machine, command, results, given.seconds, once=once)


def _images(given: argparse.Namespace) -> Images:
    if given.arch == "dasd":
        return Images(hercules.ARCH, hercules.image(), s390x_python.image())
    if given.arch == "s390x":
        base = s390x.image()
        return Images(s390x.ARCH, base, s390x_python.image())
    base = root.image()
    return Images(X86_64, base, python.image(base))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.kernel.bench", description="Run the kernel tests in guests.")
    parser.add_argument("files", nargs="*", type=Path, help="test files instead of all")
    parser.add_argument("-k", dest="expression", default="", metavar="NAME", help="only tests that match, as in pytest")
    parser.add_argument("--arch", choices=("x86_64", "s390x", "dasd"), default="x86_64", help="the processor (x86_64)")
    parser.add_argument("--smoke", action="store_true", help="only tests marked `smoke`")
    parser.add_argument("--optional", action="store_true", help="no failure where the bench can not be had")
    parser.add_argument("--coverage", action="store_true", help="measure; leaves .coverage files in build/kernel")
    parser.add_argument("--command", default="", metavar="SHELL", help="run a command in a guest, no tests")
    parser.add_argument("--nics", type=int, default=0, help="network cards of the guest of --command")
    parser.add_argument("--memory", type=int, default=Machine().memory, help="MiB of the guest of --command")
    parser.add_argument("--record", action="store_true", help="note the outcomes for docs/reference/hardware.md")
    parser.add_argument("--seconds", type=int, default=_SECONDS, help=f"of one guest, at most ({_SECONDS})")
    return parser.parse_args()


def _files(given: argparse.Namespace) -> list[Path]:
    if given.files:
        return [path.resolve() for path in given.files]
    own = sorted((plan.TESTS / _FOLDERS[given.arch]).glob("test_*.py"))
    elsewhere = suites.ELSEWHERE[given.arch]
    files = own if given.smoke else own + [ROOT / name for name in elsewhere]
    if given.smoke:
        return [path for path in files if "mark.smoke" in path.read_text()]
    return plan.chosen(files, given.expression) if given.expression else files


def _tests(given: argparse.Namespace, images: Images) -> int:
    worst, chosen = 0, False
    starts = plan.starts(_files(given))
    for start in starts:
        begun = time.monotonic()
        results = _RESULTS / f"{images.arch.name}-{start.machine.name}"
        print(f"bench: a guest with {start.machine} for {len(start.files)} files", flush=True)
        command = shlex.join(_pytest(given, list(start.files), guest=True))
        status = _boot(given, images, start.machine, command, results)
        print(f"bench: that guest ended with {status} after {boot.took(begun)}; results in {results}", flush=True)
        if given.record and (results / "junit.xml").exists():
            subprocess.run([sys.executable, ROOT / "docs" / "hardware.py", results / "junit.xml"], check=True)
        if status != _NOTHING_CHOSEN:
            chosen, worst = True, max(worst, status)
    if not chosen:
        print(f"kernel tests: none matches {given.expression or given.files or 'the choice'}")
        return _NOTHING_CHOSEN
    return worst


def _pytest(given: argparse.Namespace, files: list[str], *, guest: bool = False) -> list[str]:
    python_ = ".venv/bin/python" if guest else sys.executable
    out = "/run/brickyard-bench" if guest else str(_RESULTS / "host")
    measured = ["-m", "coverage", "run", f"--data-file={out}/.coverage", "--source=agent,coordinator"]
    command = [python_, *(measured if given.coverage else []), "-m", "pytest", "-v", "-ra", "--durations=10"]
    command += ["-p", "no:cacheprovider", "-p", "tests.kernel.bench.nothing_left", "--color=no"]
    command += ["--hypothesis-profile=emulated"] if guest else []
    command += ["-o", "timeout=600", f"--junitxml={out}/junit.xml"]
    if given.arch == "s390x":
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
