"""One logged-in session: a kept connection per address, JSON in and out. The token lives in this process alone."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

from coordinator.cli.client import credentials as creds
from coordinator.cli.client.credentials import Credentials
from coordinator.cli.client.errors import NotTheApi, NotTrusted, Unreachable, refused

_TIMEOUT_S = 200.0
_VERSION = {"OpenStack-API-Version": "volume 3.71"}
_IDENTITY, _VOLUME, _IMAGE = "/identity/v3", "/v3", "/image/v2"


class Session:
    """`call("GET", "/v3/volumes")`. Paths begin with `/v3`, `/image/v2`, `/identity/v3` or `/brickyard/v1`."""

    def __init__(self, given: Credentials) -> None:
        self._given = given
        self._headers: dict[str, str] = {}
        self._bases: dict[str, str] = {}
        self._connections: dict[str, http.client.HTTPConnection] = {}
        self.project_id = ""
        self.user_id = ""

    @classmethod
    def from_environment(cls, openrc: Path | None = None) -> Session:
        return cls(creds.read(os.environ, openrc))

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The answer's JSON (None when it is empty). Raises `Refused` and its kin, `Unreachable`, `NotTheApi`."""
        self._log_in()
        given = {key: value for key, value in query.items() if value is not None}
        target = self._base(path) + path + (f"?{urlencode(given)}" if given else "")
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, **({"Content-Type": "application/json"} if data is not None else {})}
        answer = self._send(method, target, data, headers)
        return self._decoded(target, answer.read())

    def get(self, path: str, **query: Any) -> Any:
        return self.call("GET", path, **query)

    def pages(self, path: str, key: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, page after page."""
        marker: str | None = None
        while True:
            answer = self.get(path, marker=marker, **query)
            items = answer[key]
            yield from items
            links = [value for name, value in answer.items() if name.endswith("_links")]
            more = answer.get("next_marker") or answer.get("next") or any(links)
            if not more or not (items or answer.get("next_marker")):
                return
            marker = answer.get("next_marker") or items[-1]["id"]

    def upload(self, path: str, blocks: Iterable[bytes], length: int | None) -> None:
        """PUT raw bytes; with `length` None in chunks."""
        self._log_in()
        headers = {**self._headers, "Content-Type": "application/octet-stream"}
        if length is not None:
            headers["Content-Length"] = str(length)
        target = self._base(path) + path
        self._send("PUT", target, blocks, headers, chunked=length is None).read()

    def download(self, path: str) -> tuple[IO[bytes], int | None]:
        """The body of an answer as a stream, and its length where it is told."""
        self._log_in()
        answer = self._send("GET", self._base(path) + path, None, self._headers)
        return answer, answer.length

    def own_project(self) -> str:
        """The id of the project that the session is for; empty when it is for none."""
        self._log_in()
        return self.project_id

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def _log_in(self) -> None:
        if self._headers:
            return
        given = self._given
        if given.kind != "password":
            parts = urlsplit(given.url)
            self._bases[""] = f"{parts.scheme}://{parts.netloc}"
            self._headers = dict(_VERSION)
            if given.kind == "http_basic":
                secret = base64.b64encode(f"{given.username}:{given.password}".encode()).decode()
                self._headers["Authorization"] = f"Basic {secret}"
            if given.project:
                self._headers["X-Auth-Project-Id"] = next(iter(given.project.values()))
            self.project_id = given.project.get("id", "")
            return
        target = f"{given.url}/auth/tokens" if given.url.endswith("/v3") else f"{given.url}/v3/auth/tokens"
        data = json.dumps({"auth": _password(given)}).encode()
        answer = self._send("POST", target, data, {"Content-Type": "application/json"})
        token = answer.headers.get("X-Subject-Token")
        document = self._decoded(target, answer.read())
        if not token or "token" not in (document or {}):
            raise NotTheApi(address=given.url, reason="a login brings no token")
        self._learn(document["token"])
        self._headers = {**_VERSION, "X-Auth-Token": token}

    def _learn(self, token: Mapping[str, Any]) -> None:
        self.user_id = token["user"]["id"]
        self.project_id = token.get("project", {}).get("id", "")
        kinds = {"identity": _IDENTITY, "block-storage": _VOLUME, "image": _IMAGE}
        for service in token.get("catalog", ()):
            url = next((end["url"] for end in service["endpoints"] if end["interface"] == "public"), None)
            path = kinds.get(service["type"])
            if url is not None and path is not None:
                self._bases[path] = url.rstrip("/").removesuffix(path).removesuffix("/" + path.split("/")[1])
        self._bases[""] = self._bases.get(_VOLUME, self._given.url.removesuffix("/v3").removesuffix("/identity"))

    def _base(self, path: str) -> str:
        return next((self._bases[start] for start in self._bases if start and path.startswith(start)), self._bases[""])

    def _send(
        self, method: str, target: str, data: Any, headers: Mapping[str, str], chunked: bool = False
    ) -> http.client.HTTPResponse:
        parts = urlsplit(target)
        address = f"{parts.scheme}://{parts.netloc}"
        where = parts.path + (f"?{parts.query}" if parts.query else "")
        fresh = address not in self._connections
        try:
            connection = self._connection(address)
            connection.request(method, where, body=data, headers=dict(headers), encode_chunked=chunked)
            answer = connection.getresponse()
        except ssl.SSLCertVerificationError as error:
            raise NotTrusted(address=address, reason=error.verify_message) from error
        except (OSError, http.client.HTTPException) as error:
            self._connections.pop(address, None)
            if not fresh and method == "GET" and isinstance(error, (ConnectionError, http.client.BadStatusLine)):
                return self._send(method, target, data, headers)
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unreachable(address=address, reason=reason) from error
        if answer.status >= 400:
            raw = answer.read()
            raise refused(answer.status, raw)
        return answer

    def _connection(self, address: str) -> http.client.HTTPConnection:
        if address not in self._connections:
            parts = urlsplit(address)
            if parts.scheme == "https":
                context = ssl.create_default_context(cafile=self._given.ca_file)
                self._connections[address] = http.client.HTTPSConnection(
                    parts.hostname or "", parts.port, timeout=_TIMEOUT_S, context=context
                )
            elif parts.scheme == "http":
                self._connections[address] = http.client.HTTPConnection(
                    parts.hostname or "", parts.port, timeout=_TIMEOUT_S
                )
            else:
                raise NotTheApi(address=address, reason="the address begins with neither http nor https")
        return self._connections[address]

    @staticmethod
    def _decoded(target: str, raw: bytes) -> Any:
        if not raw:
            return None
        try:
            return json.loads(raw)
        except ValueError:
            raise NotTheApi(address=target, reason="the answer is not JSON") from None


def _password(given: Credentials) -> dict[str, Any]:
    domain = dict(given.user_domain) or {"id": "default"}
    user = {"name": given.username, "domain": domain, "password": given.password}
    auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": user}}}
    if given.project:
        auth["scope"] = {"project": creds.scope(given.project, domain)}
    return auth
