"""A real Barbican: its package in an environment of its own, its own SQLite database, one process, a real Keystone."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from tests.support.servers import BY_KEYSTONE, Package, asked

PACKAGE = Package("barbican", ("barbican>=21", "gunicorn"))
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
        sent = {"Accept": "application/json", "X-Auth-Token": token, **headers}
        return asked(method, f"{self.url}/v1{path}", body, **sent).body

    def payload(self, secret_id: str, *, token: str) -> bytes:
        return bytes(self.call("GET", f"/secrets/{secret_id}/payload", token=token, Accept="application/octet-stream"))


@contextmanager
def barbican(folder: Path, keystone: str, password: str) -> Iterator[Barbican]:
    """Running, asking the Keystone at that address as its user `brickyard`; stopped at the end."""
    PACKAGE.install()
    port = free_port()
    folder.mkdir(mode=0o700)
    values = {"folder": folder, "port": port, "keystone": keystone, "password": password}
    kek = base64.urlsafe_b64encode(os.urandom(32)).decode()
    (folder / "barbican.conf").write_text((_CONFIG + BY_KEYSTONE).format(**values, kek=kek))
    (folder / "paste.ini").write_text(_PASTE.format(folder=folder))
    (folder / "serve.py").write_text(_SERVE)
    address = f"sqlite:///{folder}/barbican.db"
    PACKAGE.migrate(folder, "barbican.db", "barbican-manage", "db", "upgrade", "--db-url", address)
    found = Barbican(port, folder)
    with PACKAGE.serving(folder, found.url, "python", str(folder / "serve.py"), str(folder), str(port)):
        yield found
