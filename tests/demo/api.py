"""The public API as a user's program calls it: one token, JSON, and patience while a coordinator restarts."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.place import DemoFailed

PATIENCE_S = 60.0


class Refused(Exception):
    """An answer of 400 or more: `status`, and the text of its body."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status, self.text = status, text


@dataclass(slots=True)
class Api:
    """Logged in as the site's administrator. `check()` raises when the site is gone for good."""

    login: dict[str, str]
    check: Callable[[], None]
    token: str = ""
    project: str = ""
    _base: str = field(default="")

    def __post_init__(self) -> None:
        self._base = self.login["OS_AUTH_URL"].removesuffix("/identity/v3")
        domain = {"name": self.login["OS_USER_DOMAIN_NAME"]}
        user = {"name": self.login["OS_USERNAME"], "password": self.login["OS_PASSWORD"], "domain": domain}
        scope = {"project": {"name": self.login["OS_PROJECT_NAME"], "domain": domain}}
        identity = {"methods": ["password"], "password": {"user": user}}
        body, headers = self._send(
            "POST", "/identity/v3/auth/tokens", {"auth": {"identity": identity, "scope": scope}}
        )  # fmt: skip
        self.token = headers["X-Subject-Token"]
        self.project = body["token"]["project"]["id"]

    def get(self, path: str) -> Any:
        return self._send("GET", path, patient=True)[0]

    def post(self, path: str, body: Any) -> Any:
        return self._send("POST", path, body)[0]

    def delete(self, path: str) -> None:
        self._send("DELETE", path)

    def upload(self, path: str, file: Path) -> None:
        with file.open("rb") as data:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(file.stat().st_size)}
            self._open(urllib.request.Request(self._base + path, data, self._headers(headers), method="PUT"))

    def _send(self, method: str, path: str, body: Any = None, *, patient: bool = False) -> tuple[Any, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if data else {}
        deadline = time.monotonic() + PATIENCE_S
        while True:
            request = urllib.request.Request(self._base + path, data, self._headers(headers), method=method)
            try:
                return self._open(request)
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                self.check()
                if not patient or time.monotonic() > deadline:
                    raise DemoFailed(f"{method} {path}: {error}") from error
                time.sleep(0.05)

    def _headers(self, more: dict[str, str]) -> dict[str, str]:
        return {
            "X-Auth-Token": self.token,
            "OpenStack-API-Version": "volume 3.71",
            "Accept": "application/json",
            **more,
        }

    def _open(self, request: urllib.request.Request) -> tuple[Any, Any]:
        try:
            with urllib.request.urlopen(request, timeout=150) as answer:
                text = answer.read()
                return (json.loads(text) if text else None), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                raise Refused(error.code, error.read().decode(errors="replace")) from None

    # What the demo asks for, in the words of the API.

    def volume(self, volume_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/v3/volumes/{volume_id}")["volume"]
        return found

    def volumes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/v3/volumes/detail")["volumes"]
        return found

    def create_volume(self, name: str, **fields: Any) -> str:
        return str(self.post("/v3/volumes", {"volume": {"name": name, **fields}})["volume"]["id"])

    def usage(self) -> dict[str, int]:
        """What quota counts: volumes, gigabytes, snapshots."""
        quota = self.get(f"/v3/os-quota-sets/{self.project}?usage=True")["quota_set"]
        return {name: quota[name]["in_use"] for name in ("volumes", "gigabytes", "snapshots")}

    def messages(self, resource_id: str) -> list[str]:
        """User messages on a resource."""
        found = self.get("/v3/messages")["messages"]
        return [message["user_message"] for message in found if message["resource_uuid"] == resource_id]

    def operations(self, resource_id: str) -> list[dict[str, Any]]:
        """Operations on a resource, newest first."""
        found: list[dict[str, Any]] = self.get(f"/brickyard/v1/operations?resource_id={resource_id}")["operations"]
        return found

    def watch(self, resource_id: str) -> Iterator[dict[str, Any]]:
        """The newest operation on a resource at each progress that it makes, the last one ended."""
        operation = self.operations(resource_id)[0]
        while True:
            yield operation
            if operation["state"] not in {"running", "undoing"}:
                return
            path = f"/brickyard/v1/operations/{operation['id']}?wait=5&after={operation['seq']}"
            operation = self.get(path)["operation"]

    def settled(self, resource_id: str, on_progress: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
        """The newest operation on a resource once it has ended."""
        for operation in self.watch(resource_id):
            if on_progress is not None:
                on_progress(operation)
        return operation

    def done(self, resource_id: str, on_progress: Callable[[dict[str, Any]], None] | None = None) -> None:
        """Like `settled`; DemoFailed when it did not end well."""
        operation = self.settled(resource_id, on_progress)
        if operation["state"] != "done":
            raise DemoFailed(f"{operation['kind']} of {resource_id} ended {operation['state']}: {operation['error']}")
