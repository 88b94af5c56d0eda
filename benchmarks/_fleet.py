"""Two coordinators on a PostgreSQL, and a process that answers for their hosts; for `scale.py` and `scheduler.py`."""

from __future__ import annotations

import base64
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import _calls as calls
import _common as common

PROGRAM = Path(__file__).with_name("_hosts.py")
POSTGRESQL = {
    "fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB", "autovacuum": "on", "max_connections": "100",
}  # fmt: skip


class Simulator:
    """The hosts, in a process of their own."""

    def __init__(self, folder: Path, count: int, port: int, interval_s: float) -> None:
        command = [sys.executable, PROGRAM, "serve", folder, str(count), str(port), str(interval_s)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])},
        )  # fmt: skip
        self._line()

    def ask(self, order: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        print(order, file=self.process.stdin, flush=True)
        return self._line()

    def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        return dict(json.loads(self.process.stdout.readline() or "null"))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Pair:
    """Two coordinators of one site."""

    def __init__(self, at: Path, url: str, interval_s: float) -> None:
        self.at, self.url = at, url
        self.user = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() else "nobody"
        owner = pwd.getpwnam(self.user)
        self.ports = common.free_ports(4)
        self.sets = [f"state.url={url}", f"fleet.poll_interval_s={interval_s}", f"keys.kek_file={at}/kek"]
        (at / "kek").write_bytes(base64.b64encode(os.urandom(32)) + b"\n")
        for name in ("one", "two", "hosts"):
            (at / name).mkdir(mode=0o700)
            os.chown(at / name, owner.pw_uid, owner.pw_gid)
        (at / "kek").chmod(0o400)
        os.chown(at / "kek", owner.pw_uid, owner.pw_gid)

    def start(self) -> common.Site:
        site = common.Site(self.at)
        for number, name in enumerate(("one", "two")):
            port, enrolment = self.ports[2 * number : 2 * number + 2]
            sets = [
                *self.sets, f"coordinator.state_dir={self.at}/{name}", f"coordinator.port={port}",
                "coordinator.listen=127.0.0.1", "enrolment.listen=127.0.0.1", f"enrolment.port={enrolment}",
                "enrolment.address=127.0.0.1",
            ]  # fmt: skip
            words = [word for each in sets for word in ("--set", each)]
            site.run(name, "brickyard-coordinator", "serve", *words, user=self.user)
            common._listens(port, 120)
        return site

    def clients(self) -> list[calls.Client]:
        """One of each coordinator, not logged in yet."""
        return [calls.Client(f"http://127.0.0.1:{self.ports[number]}") for number in (0, 2)]

    def password(self) -> str:
        return (self.at / "one" / "admin-password").read_text().strip()

    def enrol(self, count: int, port: int) -> None:
        site = common.Site(self.at)
        words = [str(self.at), self.url, str(count), str(port)]
        done = site.run("enrol", "python", str(PROGRAM), "enrol", *words, user=self.user).wait()
        if done:
            raise RuntimeError((self.at / "enrol.log").read_text())
