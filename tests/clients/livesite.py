"""A whole site of real processes (`brickyard dev`), with two projects and three roles, for real clients."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
PASSWORD = "correct horse battery"
PEOPLE = {"rita": ("red", "member"), "rolf": ("red", "reader"), "bert": ("blue", "member")}
READY_S = 600
SETTLED_S = 1200
"""A busy machine may send a GiB at a few MiB/s."""


@dataclass
class LiveSite:
    """`env(who)` is the environment of a client; admin and the names of `PEOPLE` exist once `settle_people` ran."""

    folder: Path
    openrc: dict[str, str]
    _sessions: dict[str, Any] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.openrc["OS_AUTH_URL"].split("/identity")[0]

    def env(self, who: str = "admin") -> dict[str, str]:
        mine = dict(self.openrc)
        if who != "admin":
            mine |= {"OS_USERNAME": who, "OS_PASSWORD": PASSWORD, "OS_PROJECT_NAME": PEOPLE[who][0]}
        clean = {key: value for key, value in os.environ.items() if not key.startswith("OS_")}
        return {**clean, **mine}

    def session(self, who: str = "admin") -> Any:
        """A keystoneauth session, logged in once."""
        if who not in self._sessions:
            from keystoneauth1 import session
            from keystoneauth1.identity.v3 import Password

            env = self.env(who)
            login = Password(
                env["OS_AUTH_URL"], username=env["OS_USERNAME"], password=env["OS_PASSWORD"],
                project_name=env["OS_PROJECT_NAME"], user_domain_name="Default", project_domain_name="Default",
            )  # fmt: skip
            self._sessions[who] = session.Session(login)
        return self._sessions[who]

    def call(self, method: str, path: str, *, who: str = "admin", **more: Any) -> tuple[int, Any]:
        """Status and body of one call, at the newest microversion."""
        headers = {"OpenStack-API-Version": "volume 3.71"}
        answer = self.session(who).request(f"{self.url}{path}", method, headers=headers, raise_exc=False, **more)
        return answer.status_code, answer.json() if answer.text else None

    def settled(self, who: str = "admin") -> None:
        """Wait until nothing is at work in the project."""
        _, found = self.call("GET", "/brickyard/v1/operations?active=true", who=who)
        for operation in found["operations"]:
            deadline = time.monotonic() + SETTLED_S
            while time.monotonic() < deadline:
                _, now = self.call("GET", f"/brickyard/v1/operations/{operation['id']}?wait=15", who=who)
                if now["operation"]["state"] not in {"running", "undoing"}:
                    break
            else:
                raise AssertionError(f"operation does not end: {now}")

    def run(self, tool: str, *words: str, who: str = "admin", fails: bool = False, version: str | None = None) -> str:
        """Run `openstack` or `cinder`; its output, or where it has to fail its complaint."""
        env = self.env(who)
        if version is not None:
            env["OS_VOLUME_API_VERSION"] = version
        done = subprocess.run([BIN / tool, *words], env=env, capture_output=True, text=True, check=False, timeout=300)
        assert (done.returncode != 0) == fails, f"{tool} {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stderr + done.stdout if fails else done.stdout

    def openstack(self, *words: str, who: str = "admin", **more: Any) -> Any:
        """The JSON answer of an openstack command."""
        return json.loads(self.run("openstack", *words, "-f", "json", who=who, **more))

    def people(self) -> None:
        """Make the projects and users."""
        roles = {item["name"]: item["id"] for item in self.call("GET", "/identity/v3/roles")[1]["roles"]}
        projects: dict[str, str] = {}
        for name, (project, role) in PEOPLE.items():
            if project not in projects:
                body = {"project": {"name": project}}
                projects[project] = self.call("POST", "/identity/v3/projects", json=body)[1]["project"]["id"]
            body = {"user": {"name": name, "password": PASSWORD, "default_project_id": projects[project]}}
            user = self.call("POST", "/identity/v3/users", json=body)[1]["user"]["id"]
            grant = f"/identity/v3/projects/{projects[project]}/users/{user}/roles/{roles[role]}"
            assert self.call("PUT", grant)[0] == 204


@contextmanager
def live_site(*sets: str, agents: int = 2) -> Iterator[LiveSite]:
    """`brickyard dev` on a free port; stopped as a person would, and its exit code checked.

    Its folder is one that the user it drops to can reach, which a folder of pytest is not.
    """
    top = Path(tempfile.mkdtemp(prefix="brickyard-test-", dir="/var/tmp"))
    top.chmod(0o755)
    try:
        with _running(top, sets, agents) as site:
            yield site
    finally:
        shutil.rmtree(top, ignore_errors=True)


@contextmanager
def _running(top: Path, sets: tuple[str, ...], agents: int) -> Iterator[LiveSite]:
    folder = top / "state"
    words = [BIN / "brickyard", "dev", "--state-dir", folder, "--port", "0", "--agents", str(agents)]
    for item in sets:
        words += ["--set", item]
    log = top / "dev.log"
    with log.open("wb") as output:
        # It ends as by a person's hand when the test runner dies.
        process = subprocess.Popen(["setpriv", "--pdeathsig=INT", *words], stdout=subprocess.PIPE, stderr=output)
    try:
        assert _ready(process), log.read_text(errors="replace")[-4000:]
        yield LiveSite(folder, _exports(folder / "openrc"))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0, log.read_text(errors="replace")[-4000:]
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def _ready(process: subprocess.Popen[bytes]) -> bool:
    """Whether the line `ready` came in time."""
    come = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == b"ready":
                come.set()
        come.set()

    threading.Thread(target=read, daemon=True).start()
    return come.wait(READY_S) and process.poll() is None


def _exports(path: Path) -> dict[str, str]:
    lines = (line.removeprefix("export ").partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {name: value.strip("'\"") for name, _, value in lines}
