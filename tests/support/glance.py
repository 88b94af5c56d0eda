"""A real Glance: its package in an environment of its own, two stores on disk, its own SQLite database, one process."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
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

from tests.support.site import free_port

PACKAGES = ("glance>=33", "gunicorn")
STORES = ("reliable", "cheap")
_HOME = Path(__file__).parents[2] / ".venv-glance"
_CONFIG = """
[DEFAULT]
log_dir = {folder}
use_stderr = false
enabled_backends = reliable:file, cheap:file, web:http
show_multiple_locations = true
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
[oslo_policy]
enforce_new_defaults = true
[paste_deploy]
flavor = keystone
config_file = {paste}
[keystone_authtoken]
www_authenticate_uri = {keystone}
auth_url = {keystone}
interface = public
auth_type = password
username = brickyard
password = {password}
project_name = service
user_domain_id = default
project_domain_id = default
"""


@dataclass
class Glance:
    """Where it answers, and its files: one folder for each of `STORES`."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, method: str, path: str, body: Any = None, *, token: str) -> Any:
        """JSON in and out; bytes are an image's data."""
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Content-Type": kind, "X-Auth-Token": token}
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
            return json.loads(text) if answer.headers.get_content_type() == "application/json" and text else text

    def image(self, data: bytes, *, token: str, **values: Any) -> str:
        given = {"name": "image", "disk_format": "raw", "container_format": "bare", **values}
        made = str(self.call("POST", "/v2/images", given, token=token)["id"])
        self.call("PUT", f"/v2/images/{made}/file", data, token=token)
        return made


def _environment() -> Path:
    """The folder of commands, made once; skips where the package can not be had."""
    _HOME.mkdir(exist_ok=True)
    with (_HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (_HOME / "made").exists():
            subprocess.run([sys.executable, "-m", "venv", str(_HOME)], check=True, timeout=900)
            done = subprocess.run(
                [str(_HOME / "bin" / "pip"), "install", "-q", "--no-input", "--disable-pip-version-check", *PACKAGES],
                capture_output=True, text=True, check=False, timeout=1800,
            )  # fmt: skip
            if done.returncode:
                pytest.skip(f"the package of Glance can not be installed: {done.stderr.strip().splitlines()[-1:]}")
            (_HOME / "made").touch()
    return _HOME / "bin"


@contextmanager
def glance(folder: Path, keystone: str, password: str) -> Iterator[Glance]:
    """Running, asking the Keystone at that address as its user `brickyard`; stopped at the end."""
    commands = _environment()
    folder.mkdir(mode=0o700)
    for name in (*STORES, "staging", "tasks"):
        (folder / name).mkdir(mode=0o700)
    text = _CONFIG.format(
        folder=folder, paste=_HOME / "etc/glance/glance-api-paste.ini", keystone=keystone, password=password
    )
    (folder / "glance-api.conf").write_text(text)
    environment = {**os.environ, "OS_GLANCE_CONFIG_DIR": str(folder), "PYTHONWARNINGS": "ignore"}
    subprocess.run(
        [str(commands / "glance-manage"), "--config-file", str(folder / "glance-api.conf"), "db", "sync"],
        check=True, capture_output=True, timeout=900, env=environment,
    )  # fmt: skip
    found = Glance(free_port(), folder)
    words = [
        "--no-control-socket",
        "--bind",
        f"127.0.0.1:{found.port}",
        "--workers",
        "1",
        "--threads",
        "8",
        "--timeout",
        "600",
    ]
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [str(commands / "gunicorn"), *words, "glance.wsgi.api:application"], stdout=log, stderr=log, env=environment
        )
    try:
        _answers(found, process)
        yield found
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(found: Glance, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            try:
                urllib.request.urlopen(found.url, timeout=10).close()
            except urllib.error.HTTPError:
                return  # it lists its versions with status 300
        time.sleep(0.1)
    raise AssertionError((found.folder / "serve.log").read_text()[-3000:])
