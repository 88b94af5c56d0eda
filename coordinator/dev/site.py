"""The folder of a development site: what lies where, the configuration of each part, and the `openrc`."""

from __future__ import annotations

import os
import random
import shlex
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from agent.base.files import write_whole

_PORTS, _TRIES = range(12_000, 32_000), 100
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class DevSite:
    """`folder` and what is below it. Everything is made when it is missing, and left when it is there."""

    folder: Path
    port: int
    agents: int
    address: str = "127.0.0.1"

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(f"host-{_LETTERS[i]}" if i < len(_LETTERS) else f"host-{i + 1}" for i in range(self.agents))

    @property
    def coordinator_file(self) -> Path:
        return self.folder / "coordinator.toml"

    @property
    def coordinator_state(self) -> Path:
        return self.folder / "coordinator"

    @property
    def openrc(self) -> Path:
        return self.folder / "openrc"

    def agent_file(self, host: str) -> Path:
        return self.folder / f"{host}.toml"

    def agent_state(self, host: str) -> Path:
        return self.folder / host / "state"

    def volumes(self, host: str) -> Path:
        return self.folder / host / "volumes"

    def run(self, sets: Sequence[str]) -> NoReturn:
        """Become the program of this site, by exec: what is loaded here would stay as long as the site runs."""
        program = [sys.executable, "-I", "-m", "coordinator.dev.main"]
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [*program, str(self.folder), str(self.port), str(self.agents), *sets])  # noqa: S606

    def write(self) -> None:
        """Make folders and configuration. The first host keeps the images; with several, volumes lie on the others."""
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        taken: list[socket.socket] = []
        try:
            if not self.coordinator_file.exists():
                write_whole(self.coordinator_file, self._coordinator(taken).encode(), 0o644)
            for number, host in enumerate(self.hosts):
                (self.folder / host).mkdir(mode=0o711, exist_ok=True)
                if not self.agent_file(host).exists():
                    write_whole(self.agent_file(host), self._agent(host, number, taken).encode(), 0o644)
        finally:
            for each in taken:
                each.close()

    def _coordinator(self, taken: list[socket.socket]) -> str:
        return (
            f'[coordinator]\nstate_dir = "{self.coordinator_state}"\nlisten = "{self.address}"\nport = {self.port}\n\n'
            f'[enrolment]\nlisten = "{self.address}"\naddress = "{self.address}"\nport = {self.free_port(taken)}\n'
        )

    def _agent(self, host: str, number: int, taken: list[socket.socket]) -> str:
        text = (
            f'[agent]\nhost = "{host}"\nstate_dir = "{self.agent_state(host)}"\nlisten = "{self.address}"\n'
            f'address = "{self.address}"\nport = {self.free_port(taken)}\ndata_port = {self.free_port(taken)}\n'
        )
        if number == 0:
            text += f'\n[images]\nstore = "{self.folder / host / "images"}"\n'
        if number > 0 or self.agents == 1:
            text += f'\n[backends.files]\npath = "{self.volumes(host)}"\n'
        return text

    def free_port(self, taken: list[socket.socket]) -> int:
        """A port that nobody has now; it is written down, so that a restart comes back to it.

        None of those that the kernel gives to whoever connects somewhere: they may be taken at the restart.
        """
        probe = socket.socket()
        taken.append(probe)
        for port in (*random.sample(_PORTS, _TRIES), 0):
            with suppress(OSError):
                probe.bind((self.address, port))
                break
        return int(probe.getsockname()[1])

    def openrc_text(self, endpoint: str, password: str) -> str:
        """The exports that make `openstack` and `cinder` work at once."""
        values = {
            "OS_AUTH_URL": f"{endpoint}/identity/v3",
            "OS_IDENTITY_API_VERSION": "3",
            "OS_USERNAME": "admin",
            "OS_PASSWORD": password,
            "OS_PROJECT_NAME": "admin",
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_REGION_NAME": "RegionOne",
            "OS_VOLUME_API_VERSION": "3.71",
        }
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())


def default_folder() -> Path:
    """Root's home can not be entered by the user that the parts become, so root's site lies in /var/lib."""
    if os.geteuid() == 0:
        return Path("/var/lib/brickyard-dev")
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "brickyard-dev"
