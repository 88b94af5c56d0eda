"""What the benchmarks share: a site of real processes on its shipped defaults, what it costs.

The site runs as its units would: the coordinator as an ordinary user, the agent as root that forks its privileged
daemon and then drops (where the benchmark itself is not root: everything as this user, saying so).
"""

from __future__ import annotations

import argparse
import os
import platform
import pwd
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

BIN = Path(sys.executable).parent
GIB = 1 << 30
_START_S = 30.0
_SEED = Path(__file__).with_name("_seed.py")
_TICK = os.sysconf("SC_CLK_TCK")


def arguments(text: str, **flags: str) -> argparse.Namespace:
    """What was asked for; `flags` are further ones of this program, with what they are for."""
    parser = argparse.ArgumentParser(description=text)
    parser.add_argument("--quick", action="store_true", help="at most a minute")
    parser.add_argument("--dir", type=Path, help="folder on the disk to measure on; default: a temporary one")
    for name, meaning in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=meaning)
    asked = parser.parse_args()
    _own_environment()
    return asked


def _own_environment() -> None:
    """Exit where the commands beside this interpreter run another one: what would be measured is not this tree."""
    command = BIN / "brickyard-coordinator"
    first = command.read_text(errors="replace").partition("\n")[0] if command.exists() else "nothing"
    if Path(first.removeprefix("#!")).parent != BIN:
        sys.exit(f"{command} is run by {first.removeprefix('#!')}: this environment was made elsewhere and copied. "
                 "Make one of its own here: rm -rf .venv && make setup")  # fmt: skip


def goals(name: str, figures: list[tuple[str, bool]], goal: str) -> int:
    """Print the last line; the exit code."""
    met = all(good for _, good in figures)
    print(f"{name}: {', '.join(text for text, _ in figures)}; goal {goal}: {'met' if met else 'NOT met'}")
    return 0 if met else 1


def machine() -> str:
    """What this ran on, for the reader of the figures."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    cores = len(os.sched_getaffinity(0))
    busy = os.getloadavg()[0]
    name = model[1] if model else platform.machine()
    return (
        f"{cores} cores ({name}), Python {platform.python_version()}, load {busy:.1f} before, "
        f"yardstick {yardstick() * 1e3:.0f} ms"
    )


def yardstick() -> float:
    """CPU seconds that a fixed piece of Python takes now: what shares the processor can double every figure."""

    def once() -> float:
        begun, kept = time.process_time(), {}
        for number in range(200_000):
            kept[number & 1023] = (number, str(number))
        return time.process_time() - begun

    return min(once() for _ in range(5))


@contextmanager
def folder(at: Path | None) -> Iterator[Path]:
    """A folder that the unprivileged parts can enter, gone afterwards."""
    made = Path(tempfile.mkdtemp(prefix="brickyard-bench-", dir=at))
    made.chmod(0o711)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@dataclass
class Site:
    """`started` is the monotonic time of the first process. Use as a context manager; `ready` tells when it is."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    endpoint: str = ""
    endpoints: list[str] = field(default_factory=list)
    """Of all coordinators; `processes` begins with them."""
    password: str = field(default="", repr=False)
    volumes: Path = Path()
    started: float = 0.0

    def __enter__(self) -> Site:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
        for process in reversed(self.processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if error is not None:
            for log in sorted(self.folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)

    @property
    def pids(self) -> list[int]:
        return sorted({pid for process in self.processes for pid in tree(process.pid)})

    def run(self, name: str, *command: str, user: str | None = None) -> subprocess.Popen[bytes]:
        """Start one process; stdout is a pipe, stderr the file NAME.log."""
        account: dict[str, Any] = {}
        if user is not None and os.geteuid() == 0:
            entry = pwd.getpwnam(user)
            account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
                cwd="/", env=_environment(), **account,
            )  # fmt: skip
        self.processes.append(process)
        return process


def dev(at: Path) -> Site:
    """`brickyard dev` with one agent; returned when it said ready."""
    site = Site(at)
    state = at / "site"
    site.started = time.monotonic()
    process = site.run("dev", "brickyard", "dev", "--state-dir", str(state), "--port", "0")
    site.volumes = state / "host-a" / "volumes" / "volumes"
    try:
        line = _line(process, lambda text: "http://" in text)
        site.endpoint = re.search(r"(http://[0-9.:]+)", line)[1]  # type: ignore[index]
        _line(process, lambda text: text == "ready")
        site.password = (state / "coordinator" / "admin-password").read_text().strip()
    except BaseException as error:
        site.__exit__(type(error), error, None)
        raise
    return site


def units(at: Path, *, seeded: int = 0, database: str | None = None, coordinators: int = 1) -> Site:
    """Coordinator and agent as two services, on their defaults but for folders, ports and users of this machine.

    `seeded` volumes are in the database before the coordinator starts; `database` is the URL of an empty one on
    PostgreSQL, which several `coordinators` share.
    """
    site = Site(at)
    control, data = free_ports(2)
    user = _service_user()
    owner = pwd.getpwnam(user) if os.geteuid() == 0 else None
    names = ["coordinator", *(f"coordinator-{number}" for number in range(2, coordinators + 1))]
    for name in (*names, "agent"):
        (at / name).mkdir(mode=0o700)
        if owner is not None:
            os.chown(at / name, owner.pw_uid, owner.pw_gid)
    for_agent = [
        "--set", f"agent.state_dir={at}/agent/state", "--set", f"agent.port={control}", "--set", "agent.host=bench",
        "--set", f"agent.data_port={data}", "--set", "agent.listen=127.0.0.1", "--set", "agent.address=127.0.0.1",
        "--set", f"privsep.user={user}", "--set", f"backends.files.path={at}/agent/volumes",
    ]  # fmt: skip
    site.volumes = at / "agent" / "volumes" / "volumes"
    if seeded:
        more = [] if database is None else [database]
        site.run("seed", "python", str(_SEED), f"{at}/coordinator", str(seeded), *more, user=user).wait()
        site.processes.clear()
    site.started = time.monotonic()
    try:
        sets = [_coordinator(site, name, user, database) for name in names]
        site.endpoint = site.endpoints[0]
        token = _output("brickyard-coordinator", "host", "token", "bench", *sets[0])
        _output("brickyard-agent", "join", "-", *for_agent, stdin=token)
        site.run("agent", "brickyard-agent", "serve", *for_agent)
        _listens(control)
        site.password = (at / "coordinator" / "admin-password").read_text().strip()
    except BaseException as error:
        site.__exit__(type(error), error, None)
        raise
    return site


def _coordinator(site: Site, name: str, user: str, database: str | None) -> list[str]:
    """Start one; returns its settings. All of a site have the key-encryption key of the first."""
    port, enrolment = free_ports(2)
    sets = {
        "coordinator.state_dir": site.folder / name, "coordinator.port": port, "coordinator.listen": "127.0.0.1",
        "enrolment.listen": "127.0.0.1", "enrolment.port": enrolment, "enrolment.address": "127.0.0.1",
    }  # fmt: skip
    if database is not None:
        sets["state.url"] = database
    if site.endpoints:
        sets["keys.kek_file"] = site.folder / "coordinator" / "kek"
    words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
    site.endpoints.append(f"http://127.0.0.1:{port}")
    process = site.run(name, "brickyard-coordinator", "serve", *words, user=user)
    _listens(enrolment, process=process)
    _listens(port, process=process)
    return words


def _service_user() -> str:
    if os.geteuid() != 0:
        print("not root: the agent runs without privileged daemons, so this is not quite what a site has")
        return pwd.getpwuid(os.geteuid()).pw_name
    with suppress(KeyError):
        return pwd.getpwnam("brickyard").pw_name
    return "nobody"


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent"}


def _output(*command: str, stdin: str = "") -> str:
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], input=stdin, capture_output=True, text=True, cwd="/",
        env=_environment(), check=False, timeout=_START_S,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{command[0]} {command[1]} failed: {done.stderr}")
    return done.stdout


def _line(process: subprocess.Popen[bytes], wanted: Callable[[str], bool]) -> str:
    assert process.stdout is not None
    fd, deadline = process.stdout.fileno(), time.monotonic() + _START_S
    text = b""
    while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
        byte = os.read(fd, 1)  # not more than the line: the next call wants the rest
        if not byte:
            break
        text += byte
        if byte == b"\n":
            if wanted(text.decode().strip()):
                return text.decode().strip()
            text = b""
    raise RuntimeError("the site did not start")


def _listens(port: int, seconds: float = _START_S, process: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{process.args[0]} ended with {process.returncode}: its log is below")  # type: ignore[index]
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.01)
    raise RuntimeError(f"nothing listens on port {port}")


def tree(pid: int) -> list[int]:
    """A process and all that it started."""
    found = [pid]
    for at in found:
        with suppress(OSError):
            for task in Path(f"/proc/{at}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def pss_mib(pids: list[int]) -> dict[str, float]:
    """Proportional set size of each process in MiB, by `PID name`."""
    sizes = {}
    for pid in pids:
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue  # it has ended since
        kib = int(re.search(r"^Pss:\s+(\d+)", rollup, re.MULTILINE)[1])  # type: ignore[index]
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        named = " ".join(Path(word.decode(errors="replace")).name for word in argv[1:3])
        sizes[f"{pid} {named}"] = kib / 1024
    return sizes


def cpu_seconds(pids: list[int]) -> float:
    """User and system seconds of these processes so far, with those of their ended children."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            total += sum(int(part) for part in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:15])
    return total / _TICK
