"""A real Keystone: its package in an environment of its own, its own SQLite database, fernet tokens, one process."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from tests.support.servers import Answer, Package, asked

PACKAGE = Package("keystone", ("keystone>=28",))
PASSWORD = "bootstrap secret"
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
        answer = self._request("POST", "/auth/tokens", {"auth": {"identity": identity, "scope": target}}, "")
        return str(answer.headers["X-Subject-Token"])

    def call(self, method: str, path: str, body: Any = None) -> Any:
        if not self.admin:
            self.admin = self.token("admin", PASSWORD, project="admin")
        return self._request(method, path, body, self.admin).body

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

    def endpoint(self, kind: str, name: str, url: str) -> None:
        """Write a service and its public address into the catalog."""
        made = self.call("POST", "/services", {"service": {"type": kind, "name": name}})["service"]["id"]
        body = {"interface": "public", "region_id": "RegionOne", "url": url, "service_id": made}
        self.call("POST", "/endpoints", {"endpoint": body})

    def _request(self, method: str, path: str, body: Any, token: str, subject: str = "") -> Answer:
        more = {"X-Subject-Token": subject} if subject else {}
        return asked(method, f"{self.url}{path}", body, **{"X-Auth-Token": token}, **more)


@contextmanager
def keystone(folder: Path, *, admin_project: bool = False) -> Iterator[Keystone]:
    """Running, with the user admin in the project admin; stopped at the end.

    `admin_project`: only who is admin in that project is so for the whole cloud, and tokens say so.
    """
    PACKAGE.install()
    folder.mkdir(mode=0o700)
    for name in ("fernet", "credential"):
        (folder / name).mkdir(mode=0o700)
    (folder / "keystone.conf").write_text(_CONFIG.format(folder=folder) + (_ADMIN_PROJECT if admin_project else ""))
    (folder / "serve.py").write_text(_SERVE)
    me = getpass.getuser()
    account = ("--keystone-user", me, "--keystone-group", me)
    port = free_port()
    found = Keystone(port, folder)
    command = ("keystone-manage", "--config-file", str(folder / "keystone.conf"))
    PACKAGE.migrate(folder, "keystone.db", *command, "db_sync")
    for arguments in (
        ("fernet_setup", *account),
        ("credential_setup", *account),
        ("bootstrap", "--bootstrap-password", PASSWORD, "--bootstrap-region-id", "RegionOne",
         "--bootstrap-public-url", f"http://127.0.0.1:{port}/v3"),
    ):  # fmt: skip
        PACKAGE.run(folder, *command, *arguments)
    with PACKAGE.serving(folder, found.url, "python", str(folder / "serve.py"), str(folder), str(port)):
        yield found
