"""What a Vault says over HTTP: AppRole, tokens that end, a KV engine of version 2, policies, a seal.

A real one is to be had from no package here. Its words are those of its documentation, and the tests let castellan, a
client that is none of ours, read from it.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ROLE, SECRET = "role-id", "the secret id"
Json = dict[str, Any]


@dataclass
class Version:
    data: Json | None
    created: str = "2026-01-01T00:00:00.000000Z"
    deleted: str = ""
    destroyed: bool = False

    def view(self) -> Json:
        return {"created_time": self.created, "deletion_time": self.deleted, "destroyed": self.destroyed}


@dataclass
class Entry:
    versions: list[Version] = field(default_factory=list)
    custom: Json | None = None


@dataclass
class Vault:
    """`denied` are (method, beginning of a path) that the policy does not allow; `life_s` is a token's.

    `before` is told of each call before it takes effect.
    """

    port: int = 0
    sealed: bool = False
    life_s: float = 3600
    renewable: bool = True
    before: Callable[[str], None] = lambda call: None
    denied: set[tuple[str, str]] = field(default_factory=set)
    entries: dict[str, Entry] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def value(self, path: str) -> Json | None:
        """What lies there now."""
        entry = self.entries.get(path)
        return entry.versions[-1].data if entry and entry.versions and not entry.versions[-1].deleted else None

    def answer(self, method: str, path: str, headers: dict[str, str], body: Json) -> tuple[int, Json | None]:
        self.before(f"{method} {path}")
        with self._lock:
            self.calls.append(f"{method} {path}")
            self.asked.append(headers)
            if self.sealed:
                return 503, _errors("Vault is sealed")
            if method in {"POST", "PUT"} and path == "auth/approle/login":
                return self._login(body)
            token = headers.get("x-vault-token", "")
            if self.tokens.get(token, 0) <= time.monotonic():
                return 403, _errors("permission denied", "invalid token")
            if method in {"POST", "PUT"} and path == "auth/token/renew-self":
                if not self.renewable:
                    return 400, _errors("lease is not renewable")
                return 200, self._auth(token)
            if any(method == verb and path.startswith(start) for verb, start in self.denied):
                return 403, _errors("1 error occurred:\n\t* permission denied\n\n")
            mount, _, rest = path.partition("/")
            part, _, key = rest.partition("/")
            if mount != "secret" or part not in {"data", "metadata"}:
                return 404, _errors(f'no handler for route "{path}". route entry not found.')
            return (self._data if part == "data" else self._metadata)(method, key, body)

    def _login(self, body: Json) -> tuple[int, Json]:
        if body.get("role_id") != ROLE or body.get("secret_id") != SECRET:
            return 400, _errors("invalid role or secret ID")
        return 200, self._auth("hvs." + secrets.token_urlsafe(24))

    def _auth(self, token: str) -> Json:
        self.tokens[token] = time.monotonic() + self.life_s
        auth = {"client_token": token, "accessor": "a", "policies": ["default", "brickyard"], "token_type": "service",
                "lease_duration": self.life_s, "renewable": self.renewable, "orphan": True}  # fmt: skip
        return {"request_id": "r", "lease_id": "", "renewable": False, "lease_duration": 0, "data": None, "auth": auth}

    def _data(self, method: str, key: str, body: Json) -> tuple[int, Json | None]:
        entry = self.entries.get(key, Entry())
        number = len(entry.versions)
        if method == "GET":
            if not number:
                return 404, _errors()
            newest = entry.versions[-1]
            metadata = {**newest.view(), "version": number, "custom_metadata": entry.custom}
            gone = bool(newest.deleted) or newest.destroyed
            return (404 if gone else 200), _data({"data": None if gone else newest.data, "metadata": metadata})
        if method == "DELETE":
            if number:
                entry.versions[-1].deleted = "2026-01-02T00:00:00.000000Z"
            return 204, None
        if "data" not in body:
            return 400, _errors("no data provided")
        wanted = (body.get("options") or {}).get("cas")
        if wanted is not None and wanted != number:
            return 400, _errors("check-and-set parameter did not match the current version")
        entry.versions.append(Version(body["data"]))
        self.entries[key] = entry
        return 200, _data({**entry.versions[-1].view(), "version": number + 1, "custom_metadata": entry.custom})

    def _metadata(self, method: str, key: str, body: Json) -> tuple[int, Json | None]:
        if method == "DELETE":
            self.entries.pop(key, None)
            return 204, None
        if method in {"POST", "PUT"}:
            self.entries.setdefault(key, Entry()).custom = body.get("custom_metadata")
            return 204, None
        entry = self.entries.get(key)
        if entry is None:
            return 404, _errors()
        versions = {str(number): one.view() for number, one in enumerate(entry.versions, 1)}
        return 200, _data({"versions": versions, "current_version": len(versions), "custom_metadata": entry.custom})


def _errors(*told: str) -> Json:
    return {"errors": list(told)}


def _data(data: Json) -> Json:
    return {"request_id": "r", "lease_id": "", "renewable": False, "lease_duration": 0, "data": data, "wrap_info": None,
            "warnings": None, "auth": None}  # fmt: skip


@contextmanager
def vault() -> Iterator[Vault]:
    """Listening until the end."""
    state = Vault()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _all(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = state.answer(self.command, self.path.removeprefix("/v1/"), headers, body or {})
            raw = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_DELETE = _all

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
