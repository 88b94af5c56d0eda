"""A real Glance: its package in an environment of its own, two stores on disk, its own SQLite database, one process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from tests.support.servers import BY_KEYSTONE, Package, asked

PACKAGE = Package("glance", ("glance>=33", "glance-store[cinder]", "gunicorn"))
STORES = ("reliable", "cheap")
VOLUMES = "block"
"""The store of volumes, where there is one."""
_CONFIG = """
[DEFAULT]
log_dir = {folder}
use_stderr = false
enabled_backends = {stores}
show_multiple_locations = {tells_all}
do_secure_hash = false
[glance_store]
default_backend = reliable
[reliable]
filesystem_store_datadir = {folder}/reliable
[cheap]
filesystem_store_datadir = {folder}/cheap
[os_glance_staging_store]
filesystem_store_datadir = {folder}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {folder}/tasks
[database]
connection = sqlite:///{folder}/glance.db
[paste_deploy]
flavor = keystone
config_file = {paste}
"""
_VOLUMES = """
[block]
cinder_store_auth_address = {keystone}
cinder_store_user_name = brickyard
cinder_store_password = {password}
cinder_store_project_name = service
"""


@dataclass
class Glance:
    """Where it answers, and its files: one folder for each of `STORES`."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, method: str, path: str, body: Any = None, *, token: str, **headers: str) -> Any:
        """JSON in and out; bytes are an image's data."""
        return asked(method, f"{self.url}{path}", body, **{"X-Auth-Token": token, **headers}).body

    def image(self, data: bytes, *, token: str, **values: Any) -> str:
        given = {"name": "image", "disk_format": "raw", "container_format": "bare", **values}
        made = str(self.call("POST", "/v2/images", given, token=token)["id"])
        self.call("PUT", f"/v2/images/{made}/file", data, token=token)
        return made


@contextmanager
def glance(folder: Path, keystone: str, password: str, *, volumes: bool = False) -> Iterator[Glance]:
    """Running, asking the Keystone at that address as its user `brickyard`; stopped at the end.

    With `volumes` it has a store of those, of whichever block storage the Keystone names, and tells locations to
    services alone.
    """
    PACKAGE.install()
    folder.mkdir(mode=0o700)
    for name in (*STORES, "staging", "tasks"):
        (folder / name).mkdir(mode=0o700)
    paste = PACKAGE.home / "etc/glance/glance-api-paste.ini"
    stores = ("reliable:file", "cheap:file", "web:http", *([f"{VOLUMES}:cinder"] if volumes else []))
    text = (_CONFIG + (_VOLUMES if volumes else "") + BY_KEYSTONE).format(
        folder=folder, paste=paste, keystone=keystone, password=password, stores=", ".join(stores),
        tells_all=not volumes,
    )  # fmt: skip
    config = folder / "glance-api.conf"
    config.write_text(text)
    PACKAGE.migrate(folder, "glance.db", "glance-manage", "--config-file", str(config), "db", "sync")
    found = Glance(free_port(), folder)
    words = ("--no-control-socket", "--bind", f"127.0.0.1:{found.port}", "--workers", "1", "--threads", "8",
             "--timeout", "600")  # fmt: skip
    with PACKAGE.serving(
        folder, found.url, "gunicorn", *words, "glance.wsgi.api:application", OS_GLANCE_CONFIG_DIR=str(folder)
    ):
        yield found
