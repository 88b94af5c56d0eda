"""A real Keystone: its package in an environment of its own, its own SQLite database, fernet tokens, one process."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PACKAGE = "keystone>=28"
PASSWORD = "bootstrap secret"
_HOME = Path(__file__).parents[2] / ".venv-keystone"
_CONFIG = """
[DEFAULT]
log_dir = {folder}
use_stderr = false
[database]
connection = sqlite:///{folder}/keystone.db
[token]
provider = fernet
allow_expired_window = 3600
[fernet_tokens]
key_repository = {folder}/fernet
[credential]
key_repository = {folder}/credential
[revoke]
caching = false
[cache]
enabled = false
"""
_ADMIN_PROJECT = """
[resource]
admin_project_domain_name = Default
admin_project_name = admin
"""
_SERVE = """
import os, sys
os.environ["OS_KEYSTONE_CONFIG_DIR"] = sys.argv[1]
port, sys.argv = int(sys.argv[2]), ["keystone"]
from keystone.server.wsgi import initialize_public_application
from werkzeug.serving import run_simple
run_simple("127.0.0.1", port, initialize_public_application(), threaded=True)
"""


@dataclass
class Keystone:
    """`call` as the administrator; `token` logs a user in."""

    port: int
    folder: Path
    admin: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v3"

    def token(self, name: str, password: str, **scope: Any) -> str:
        """A token in `project=NAME`, or with `system=True`."""
        domain = {"id": "default"}
        user = {"name": name, "domain": domain, "password": password}
        target = {"system": {"all": True}} if scope.get("system") else {
            "project": {"name": scope["project"], "domain": domain}
        }  # fmt: skip
        identity = {"methods": ["password"], "password": {"user": user}}
        _, headers, _ = self._request("POST", "/auth/tokens", {"auth": {"identity": identity, "scope": target}}, "")
        return str(headers["X-Subject-Token"])

    def call(self, method: str, path: str, body: Any = None) -> Any:
        if not self.admin:
            self.admin = self.token("admin", PASSWORD, project="admin")
        return self._request(method, path, body, self.admin)[2]

    def revoke(self, token: str) -> None:
        self._request("DELETE", "/auth/tokens", None, self.admin or token, subject=token)

    def role(self, name: str) -> str:
        found = self.call("GET", f"/roles?name={name}")["roles"]
        return str(found[0]["id"] if found else self.call("POST", "/roles", {"role": {"name": name}})["role"]["id"])

    def project(self, name: str, parent: str | None = None) -> str:
        wanted = {"name": name, "domain_id": "default", **({"parent_id": parent} if parent else {})}
        return str(self.call("POST", "/projects", {"project": wanted})["project"]["id"])

    def user(self, name: str, password: str, project: str, *roles: str) -> str:
        body = {"user": {"name": name, "password": password, "domain_id": "default"}}
        user = str(self.call("POST", "/users", body)["user"]["id"])
        for role in roles:
            self.call("PUT", f"/projects/{project}/users/{user}/roles/{self.role(role)}")
        return user

    def _request(self, method: str, path: str, body: Any, token: str, subject: str = "") -> tuple[int, Any, Any]:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json", "X-Auth-Token": token}
        if subject:
            headers["X-Subject-Token"] = subject
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
            return answer.status, answer.headers, json.loads(text) if text else None


def _environment() -> Path:
    """The folder of commands, made once; skips where the package can not be had."""
    _HOME.mkdir(exist_ok=True)
    with (_HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (_HOME / "made").exists():
            subprocess.run([sys.executable, "-m", "venv", str(_HOME)], check=True, timeout=900)
            done = subprocess.run(
                [str(_HOME / "bin" / "pip"), "install", "-q", "--no-input", "--disable-pip-version-check", PACKAGE],
                capture_output=True, text=True, check=False, timeout=1800,
            )  # fmt: skip
            if done.returncode:
                pytest.skip(f"the package of Keystone can not be installed: {done.stderr.strip().splitlines()[-1:]}")
            (_HOME / "made").touch()
    return _HOME / "bin"


@contextmanager
def keystone(folder: Path, *, admin_project: bool = False) -> Iterator[Keystone]:
    """Running, with the user admin in the project admin; stopped at the end.

    `admin_project`: only who is admin in that project is so for the whole cloud, and tokens say so.
    """
    commands = _environment()
    folder.mkdir(mode=0o700)
    for name in ("fernet", "credential"):
        (folder / name).mkdir(mode=0o700)
    (folder / "keystone.conf").write_text(_CONFIG.format(folder=folder) + (_ADMIN_PROJECT if admin_project else ""))
    (folder / "serve.py").write_text(_SERVE)
    me = getpass.getuser()
    account = ("--keystone-user", me, "--keystone-group", me)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    for arguments in (
        ("db_sync",),
        ("fernet_setup", *account),
        ("credential_setup", *account),
        ("bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "RegionOne",
         "--bootstrap-public-url", f"http://127.0.0.1:{port}/v3"),
    ):  # fmt: skip
        subprocess.run(
            [str(commands / "keystone-manage"), "--config-file", str(folder / "keystone.conf"), *arguments],
            check=True, capture_output=True, timeout=900, env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [str(commands / "python"), str(folder / "serve.py"), str(folder), str(port)], stdout=log, stderr=log
        )
    found = Keystone(port, folder)
    try:
        _answers(found, process)
        yield found
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(found: Keystone, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError, urllib.error.URLError):
            urllib.request.urlopen(found.url, timeout=10).close()
            return
        time.sleep(0.1)
    raise AssertionError((found.folder / "serve.log").read_text()[-3000:])
