"""A real nginx before several coordinators, with the API below a path, as the how-to on running services sets it up."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port

BINARY = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
CONFIG = """
daemon off; pid {folder}/pid; error_log stderr; worker_processes 1; user nobody nogroup;
events {{ worker_connections 256; }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    keepalive_timeout {keepalive_s};
    upstream brickyard {{ {servers} keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        location /volume/ {{
            proxy_pass http://brickyard/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Prefix /volume;
        }}
    }}
}}
"""


def address(port: int) -> str:
    """Where clients find the API."""
    return f"http://127.0.0.1:{port}/volume"


class Nginx:
    """Each coordinator is asked in turn, and left out for ten seconds after it did not answer."""

    def __init__(self, folder: Path, ports: list[int], keepalive_s: int, port: int) -> None:
        self._folder, self._port, self._keepalive_s = folder, port, keepalive_s
        self.url = address(port)
        self._write(ports)
        assert BINARY is not None
        self._process = subprocess.Popen([BINARY, "-p", str(folder), "-c", str(folder / "conf")])
        self._until_it_listens()

    def _write(self, ports: list[int]) -> None:
        servers = " ".join(f"server 127.0.0.1:{each};" for each in ports)
        values = {"folder": self._folder, "port": self._port, "keepalive_s": self._keepalive_s}
        (self._folder / "conf").write_text(CONFIG.format(servers=servers, **values))

    def ask(self, ports: list[int]) -> None:
        """Ask these from now on; returns when no request to the others is under way any more."""
        before = self._workers()
        self._write(ports)
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 120
        while not (now := self._workers()) or now & before:
            assert time.monotonic() < deadline, "nginx still has its former workers"
            time.sleep(0.05)

    def _workers(self) -> set[str]:
        pid = self._process.pid
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())

    def _until_it_listens(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            assert self._process.poll() is None, f"nginx ended with {self._process.returncode}"
            try:
                socket.create_connection(("127.0.0.1", self._port), 5).close()
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return

    def close(self) -> None:
        self._process.send_signal(signal.SIGQUIT)
        assert self._process.wait(60) == 0


@contextmanager
def nginx(folder: Path, ports: list[int], *, keepalive_s: int = 75, port: int = 0) -> Iterator[Nginx]:
    """It is up, and stopped at the end. `keepalive_s` 0: no connection of a client is used twice."""
    folder.chmod(0o755)
    made = Nginx(folder, ports, keepalive_s, port or free_port())
    try:
        yield made
    finally:
        made.close()
