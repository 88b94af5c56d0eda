"""A whole site of real processes, each of which can be killed anywhere and started again: coordinator and agents.

All are forked from one small process that imported everything once. Faults are armed as an operator would
(`testing.fault`), or while a process runs, which spares a restart.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from coordinator.dev.site import DevSite
from tests.integration.agent.zygote import Forked, Zygote
from tests.support.api import Api
from tests.support.ports import free_port
from tests.support.truths import Truths

QUICK = ("identity.bcrypt_rounds=4", "api.response_validation=error")
AGENT = ("images.passphrase_iterations=1000", "agent.stop_grace_s=2.0")


class Layout(DevSite):
    """Its processes are killed and come back: nobody may take their ports meanwhile."""

    def free_port(self, taken: list[socket.socket]) -> int:
        return free_port()


@cache
def zygote() -> Zygote:
    return Zygote("from tests.support.parts import run_part", "    return run_part(request, ready)")


class Part:
    """One process of the site. `sets` are `--set` overrides that each of its starts gets, `forked_by` its release."""

    def __init__(self, site: Site, name: str, config: Path, sets: tuple[str, ...]) -> None:
        self.site, self.name, self.config, self.sets = site, name, config, sets
        self.log = site.folder / f"{name}.log"
        self.control = site.folder / f"{name}.control"
        self.process: Forked | None = None
        self.forked_by = zygote
        self.more: dict[str, Any] = {}
        self._pipe, self._buffer = -1, b""
        self.api = site.api if hasattr(site, "api") else Api(0, Path())

    def begin(self, *sets: str) -> None:
        """Fork it; `heard` tells when it serves."""
        self._hang_up()
        request = {
            "part": "coordinator" if self.is_coordinator else "agent",
            "config": str(self.config),
            "sets": [*self.sets, *sets],
            "control": str(self.control),
            "hosts": list(self.site.hosts),
            **self.more,
        }
        self.process, self._pipe = self.forked_by().fork(request, self.log)

    def start(self, *sets: str) -> None:
        self.begin(*sets)
        self.heard("port" if self.is_coordinator else "serves")

    @property
    def is_coordinator(self) -> bool:
        return self.name.startswith("coordinator")

    def heard(self, key: str, seconds: float = 180) -> dict[str, Any]:
        """The process's next message that has `key`; raises when it dies before."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        while True:
            *lines, self._buffer = self._buffer.split(b"\n")
            for number, line in enumerate(lines):
                message = json.loads(line)
                if key in message:
                    self._buffer = b"\n".join([*lines[number + 1 :], self._buffer])
                    return dict(message)
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._pipe, self.process.fd], [], [], max(0.0, left))
            more = os.read(self._pipe, 65536) if self._pipe in ready else b""
            self._buffer += more
            if ready and not more:
                self.process.wait(120)
                raise AssertionError(f"{self.name} ended with {self.process.poll()}:\n{self.tail()}")
            if not ready:
                raise AssertionError(f"{self.name} did not say {key} in {seconds} s:\n{self.tail()}")

    def arm(self, fault: str | None, record: Path | None = None) -> None:
        """Arm a fault point (and a record of the passed ones) in the running process."""
        assert self.process is not None
        self.control.write_text(json.dumps({"fault": fault, "record": str(record) if record else None}))
        self.control.chmod(0o644)
        self.process.send_signal(signal.SIGUSR1)
        self.heard("armed")

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def died(self, seconds: float = 120) -> int:
        """Its exit code; TimeoutError when it lives on."""
        assert self.process is not None
        return self.process.wait(seconds)

    def pause(self) -> None:
        """SIGSTOP: as a machine that stands still."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(120)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGCONT)
        return self.process.wait(120)

    def tail(self) -> str:
        return self.log.read_text()[-4000:] if self.log.exists() else ""

    def _hang_up(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
        self._pipe, self._buffer = -1, b""

    def close(self) -> None:
        self.kill()
        self._hang_up()


class Site:
    """`start()` brings all up; `restart(part)` one; `clean()` raises unless rows, files and kernel agree.

    With `database`, the URL of an empty PostgreSQL database, the state lies there, and several `coordinators` share it.
    """

    def __init__(
        self, agents: int = 2, sets: tuple[str, ...] = (), agent_sets: tuple[str, ...] = (), *,
        database: str | None = None, coordinators: int = 1,
    ) -> None:  # fmt: skip
        self.database = database
        if database is not None:
            sets = (*sets, f"state.url={database}")
        self.folder = Path(tempfile.mkdtemp(prefix="brickyard-test-", dir="/var/tmp"))
        zygote().removes(self.folder)
        self.folder.chmod(0o755)
        self.layout = Layout(self.folder / "site", free_port(), agents)
        self.layout.write()
        self.hosts = self.layout.hosts
        self.coordinator = Part(self, "coordinator", self.layout.coordinator_file, (*QUICK, *sets))
        self.agents = {
            host: Part(self, host, self.layout.agent_file(host), (*AGENT, *agent_sets)) for host in self.hosts
        }
        self.others = [self._other(number, sets) for number in range(2, coordinators + 1)]
        self.api = Api(self.layout.port, self.layout.coordinator_state / "admin-password")
        self.truths = Truths(self)
        self.records = self.folder / "records"
        self.records.mkdir()
        self.records.chmod(0o777)

    def _other(self, number: int, sets: tuple[str, ...]) -> Part:
        """A further coordinator: a state directory, ports and a certificate of its own, and the site's one key file."""
        name = f"coordinator-{number}"
        layout = Layout(self.folder / name, free_port(), 1)
        layout.write()
        more = (*QUICK, *sets, f"keys.kek_file={self.layout.coordinator_state / 'kek'}")
        part = Part(self, name, layout.coordinator_file, more)
        part.api = Api(layout.port, self.layout.coordinator_state / "admin-password")
        return part

    @property
    def coordinators(self) -> list[Part]:
        return [self.coordinator, *self.others]

    @property
    def parts(self) -> dict[str, Part]:
        return {**{part.name: part for part in self.coordinators}, **self.agents}

    @property
    def volume_host(self) -> str:
        """The host that volumes are placed on."""
        return self.hosts[-1]

    def start(self) -> None:
        self.coordinator.begin()
        tokens = self.coordinator.heard("port")["tokens"]
        for host, part in self.agents.items():
            part.more["token"] = tokens.get(host, "")
            part.begin()
        for part in self.agents.values():
            part.heard("serves")
        self.coordinator.heard("up")
        for part in self.others:
            part.start()
            part.heard("up")
        self.api.login()
        self.coordinator.api = self.api
        for part in self.others:
            part.api.share(self.api)
        limits = dict.fromkeys(("volumes", "gigabytes", "snapshots"), -1)
        self.api.call("PUT", f"/v3/os-quota-sets/{self.api.project}", {"quota_set": limits})

    def restart(self, name: str, *sets: str) -> None:
        """Start a part that has died; returns when it serves."""
        part = self.parts[name]
        assert not part.alive, f"{name} lives"
        self.api.hang_up()
        part.start(*sets)

    def passed(self, part: Part, act: Callable[[], None]) -> list[str]:
        """The fault points that a part passes while `act` runs and until all is settled, in order."""
        record = self.records / f"{part.name}-{time.monotonic_ns()}"
        record.touch()
        record.chmod(0o666)
        part.arm(None, record)
        act()
        self.truths.clean()
        part.arm(None)
        return record.read_text().split()

    def clean(self) -> None:
        """See `Truths.clean`."""
        self.truths.clean()

    def logs(self) -> str:
        return "\n".join(f"== {part.name}\n{part.tail()}" for part in self.parts.values())

    def close(self) -> None:
        """Graceful stop; AssertionError when a process or device of the site is left."""
        self.api.hang_up()
        try:
            for part in reversed(self.parts.values()):
                if part.alive:
                    part.stop()
            left = self.truths.processes()
            assert not left, f"processes that outlived the site: {left}"
        finally:
            for part in self.parts.values():
                part.close()
            self.truths.unbind()
            shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def running(agents: int = 2, sets: tuple[str, ...] = (), agent_sets: tuple[str, ...] = ()) -> Iterator[Site]:
    """A site that is up; removed at the end, whatever happened."""
    with started(Site(agents, sets, agent_sets)) as site:
        yield site


@contextmanager
def started(site: Site) -> Iterator[Site]:
    """The same, of a site that was prepared in some way."""
    failed = True
    try:
        site.start()
        yield site
        failed = False
    finally:
        if failed:
            print(site.logs())
        site.close()
