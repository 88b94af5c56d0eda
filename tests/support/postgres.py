"""A PostgreSQL of the tests' own: Debian's package, a temporary folder, a unix socket, an unprivileged user.

It starts when the first test needs it and ends with the process that started it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from functools import cache
from itertools import count
from pathlib import Path

import psycopg
import pytest

# What is committed survives the server's own death, but not the machine's.
FAST = {
    "fsync": "off", "full_page_writes": "off", "listen_addresses": "", "autovacuum": "off",
    "max_connections": "300", "shared_buffers": "32MB", "max_wal_size": "256MB", "log_min_messages": "fatal",
    "deadlock_timeout": "50ms",
}  # fmt: skip
CONNECT_S = 60
"""A server whose machine is busy with much else may take long to start the process that answers."""
_names = count(1)


class Cluster:
    """One running server. `url(database)` is where to connect."""

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="brickyard-pg-", dir="/tmp"))
        self.bin = programs()
        self.settings = {**FAST, **(settings or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            shutil.chown(self.folder, "nobody", "nogroup")
            self._as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
        self.folder.chmod(0o755)
        subprocess.run(
            [*self._as_user, self.bin / "initdb", "-D", self.folder / "data", "-U", "brickyard", "--auth=trust",
             "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"],
            check=True, capture_output=True, cwd="/", env={**os.environ, "TZ": "UTC"},
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        wanted = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*(self._as_user or ["setpriv"]), "--pdeathsig=QUIT", self.bin / "postgres", "-D", self.folder / "data",
                 "-k", self.folder, *wanted],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
            )  # fmt: skip
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                assert time.monotonic() < deadline, "PostgreSQL did not answer within a minute"
                time.sleep(0.05)
            else:
                return

    def url(self, database: str) -> str:
        return f"postgresql://brickyard@/{database}?host={self.folder}&connect_timeout={CONNECT_S}"

    def database(self, template: str = "template1") -> str:
        """Make an empty database (or a copy of another); returns its URL."""
        name = f"t{os.getpid()}_{next(_names)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, url: str) -> None:
        name = url.partition("@/")[2].partition("?")[0]
        self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def run(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as conn:
            conn.execute(statement)

    def kill(self) -> None:
        """As if the power had failed, for the server alone."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(30)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def programs() -> Path:
    """The folder of Debian's newest server; skips the test where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        if os.environ.get("CI"):
            raise AssertionError("PostgreSQL's server is not installed; .ci/setup does that")
        pytest.skip("PostgreSQL's server is not installed (Debian package postgresql)")
    return found[-1].parent


@cache
def cluster() -> Cluster:
    """The one of this process."""
    assert threading.current_thread() is threading.main_thread(), "it ends with the thread that starts it"
    made = Cluster()
    atexit.register(made.close)
    return made
