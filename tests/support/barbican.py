"""A real Barbican: its package in an environment of its own, its own SQLite database, one process, a real Keystone."""

from __future__ import annotations

import base64
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

PACKAGES = ("barbican>=21", "gunicorn")
_HOME = Path(__file__).parents[2] / ".venv-barbican"
_CONFIG = """
[DEFAULT]
log_dir = {folder}
use_stderr = false
host_href = http://127.0.0.1:{port}
transport_url = fake://
[database]
connection = sqlite:///{folder}/barbican.db
[secretstore]
enabled_secretstore_plugins = store_crypto
[crypto]
enabled_crypto_plugins = simple_crypto
[simple_crypto_plugin]
kek = {kek}
[oslo_policy]
enforce_new_defaults = true
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
_PASTE = """
[composite:main]
use = egg:Paste#urlmap
/: versions
/v1: api
[pipeline:versions]
pipeline = microversion versionapp
[pipeline:api]
pipeline = authtoken context microversion apiapp
[app:apiapp]
paste.app_factory = barbican.api.app:create_main_app
[app:versionapp]
paste.app_factory = barbican.api.app:create_version_app
[filter:authtoken]
paste.filter_factory = keystonemiddleware.auth_token:filter_factory
oslo_config_project = barbican
oslo_config_file = {folder}/barbican.conf
[filter:context]
paste.filter_factory = barbican.api.middleware.context:ContextMiddleware.factory
[filter:microversion]
paste.filter_factory = barbican.api.middleware.microversion:MicroversionMiddleware.factory
"""
_SERVE = """
import sys
folder, port, sys.argv = sys.argv[1], int(sys.argv[2]), ["barbican"]
from paste import deploy
application = deploy.loadapp("config:" + folder + "/paste.ini", name="main")
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from socketserver import ThreadingMixIn
class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
make_server("127.0.0.1", port, application, Server).serve_forever()
"""


@dataclass
class Barbican:
    """`call` with a token; `opening` reads a payload."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, method: str, path: str, body: Any = None, *, token: str, **headers: str) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        sent = {"Content-Type": "application/json", "Accept": "application/json", "X-Auth-Token": token, **headers}
        request = urllib.request.Request(f"{self.url}/v1{path}", data, sent, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
            if answer.headers.get_content_type() == "application/json" and text:
                return json.loads(text)
            return text

    def payload(self, secret_id: str, *, token: str) -> bytes:
        return bytes(self.call("GET", f"/secrets/{secret_id}/payload", token=token, Accept="application/octet-stream"))


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
                pytest.skip(f"the package of Barbican can not be installed: {done.stderr.strip().splitlines()[-1:]}")
            (_HOME / "made").touch()
    return _HOME / "bin"


@contextmanager
def barbican(folder: Path, keystone: str, password: str) -> Iterator[Barbican]:
    """Running, asking the Keystone at that address as its user `brickyard`; stopped at the end."""
    commands, port = _environment(), free_port()
    folder.mkdir(mode=0o700)
    values = {"folder": folder, "port": port, "keystone": keystone, "password": password}
    kek = base64.urlsafe_b64encode(os.urandom(32)).decode()
    (folder / "barbican.conf").write_text(_CONFIG.format(**values, kek=kek))
    (folder / "paste.ini").write_text(_PASTE.format(folder=folder))
    (folder / "serve.py").write_text(_SERVE)
    # Each of its plugins looks for the configuration by itself, in the home directory.
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore", "HOME": str(folder)}
    subprocess.run(
        [str(commands / "barbican-manage"), "db", "upgrade", "--db-url", f"sqlite:///{folder}/barbican.db"],
        check=True, capture_output=True, timeout=900, env=quiet, cwd=folder,
    )  # fmt: skip
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [str(commands / "python"), str(folder / "serve.py"), str(folder), str(port)],
            stdout=log, stderr=log, env=quiet, cwd=folder,
        )  # fmt: skip
    found = Barbican(port, folder)
    try:
        _answers(found, process)
        yield found
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(found: Barbican, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(found.url, timeout=10).close()
        except urllib.error.HTTPError:
            return  # 300: it tells its versions
        except OSError:
            time.sleep(0.1)
        else:
            return
    with suppress(OSError):
        raise AssertionError((found.folder / "serve.log").read_text()[-3000:])
    raise AssertionError("Barbican does not answer")
