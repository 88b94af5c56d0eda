"""The public API as a program calls it: one token, JSON, and patience while a coordinator is away."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

AWAY = (ConnectionError, http.client.HTTPException, TimeoutError, OSError)
ACTIVE = ("running", "undoing")


class Refused(Exception):
    """An answer of 400 or more."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status, self.text = status, text


class Api:
    """Calls as the site's administrator. No answer raises one of AWAY, unless `patient` seconds are given."""

    def __init__(self, port: int, password_file: Path) -> None:
        self.port, self._password_file = port, password_file
        self._token = self.project = ""
        self._mine = threading.local()
        self.bodies: list[bytes] = []
        self.versions = "volume 3.71"

    def password(self) -> str:
        return self._password_file.read_text().strip()

    def login(self) -> None:
        domain = {"id": "default"}
        user = {"name": "admin", "password": self.password(), "domain": domain}
        scope = {"project": {"name": "admin", "domain": domain}}
        identity = {"methods": ["password"], "password": {"user": user}}
        path = "/identity/v3/auth/tokens"
        status, headers, body = self._once("POST", path, json.dumps({"auth": {"identity": identity, "scope": scope}}))
        assert status == 201, body
        self._token = headers["X-Subject-Token"]
        self.project = json.loads(body)["token"]["project"]["id"]

    def share(self, other: Api) -> None:
        """Use the token that another coordinator has given."""
        self._token, self.project = other._token, other.project

    def call(self, method: str, path: str, body: Any = None, *, patient: float = 0, kind: str = "") -> Any:
        """The parsed answer; with `patient`, asked again for that many seconds while nobody answers.

        `kind`: the body's type, where it is neither plain JSON nor bytes.
        """
        deadline = time.monotonic() + patient
        while True:
            try:
                if not self._token:
                    self.login()
                data = body if isinstance(body, bytes) or body is None else json.dumps(body)
                status, _, text = self._once(method, path, data, kind)
                break
            except AWAY:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        if status >= 400:
            raise Refused(status, text.decode(errors="replace"))
        return json.loads(text) if text else None

    def get(self, path: str) -> Any:
        return self.call("GET", path, patient=30)

    def post(self, path: str, body: Any) -> Any:
        return self.call("POST", path, body)

    def delete(self, path: str) -> Any:
        return self.call("DELETE", path)

    def _once(self, method: str, path: str, data: str | bytes | None, kind: str = "") -> tuple[int, Any, bytes]:
        kind = kind or ("application/octet-stream" if isinstance(data, bytes) else "application/json")
        headers = {"Accept": "application/json", "OpenStack-API-Version": self.versions, "X-Auth-Token": self._token}
        if data is not None:
            headers["Content-Type"] = kind
        if not self._token:
            del headers["X-Auth-Token"]
        connection = getattr(self._mine, "connection", None)
        if connection is None:
            connection = self._mine.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            body = answer.read()
        except AWAY:
            self.hang_up()
            raise
        self.bodies.append(body)
        return answer.status, answer.headers, body

    def hang_up(self) -> None:
        """Let this thread's connection go; its next call opens another."""
        connection, self._mine.connection = getattr(self._mine, "connection", None), None
        if connection is not None:
            with suppress(*AWAY):
                connection.close()

    # In the words of the API.

    def active(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/brickyard/v1/operations?active=true&all_projects=true")["operations"]
        return found

    def operations(self, resource_id: str) -> list[dict[str, Any]]:
        """Operations of a resource, newest first."""
        found: list[dict[str, Any]] = self.get(f"/brickyard/v1/operations?resource_id={resource_id}")["operations"]
        return found

    def settle(self, seconds: float = 30) -> None:
        """Until no operation is at work any more; AssertionError names what is, when that takes too long."""
        deadline = time.monotonic() + seconds
        while active := self.active():
            assert time.monotonic() < deadline, f"still at work after {seconds} s: {active}"
            self.wait(active[0]["id"], 2)

    def wait(self, operation_id: str, seconds: float) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/brickyard/v1/operations/{operation_id}?wait={int(seconds)}")["operation"]
        return found

    def progress(self, resource_id: str) -> Iterator[dict[str, Any]]:
        """The newest operation of a resource at each progress, the last one ended."""
        operation = self.operations(resource_id)[0]
        while True:
            yield operation
            if operation["state"] not in ACTIVE:
                return
            path = f"/brickyard/v1/operations/{operation['id']}?wait=5&after={operation['seq']}"
            operation = self.get(path)["operation"]

    def volumes(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/v3/volumes/detail?limit=1000")["volumes"]
        return found

    def volume(self, volume_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"/v3/volumes/{volume_id}")["volume"]
        return found

    def create_volume(self, name: str, size: int = 1, **fields: Any) -> str:
        return str(self.post("/v3/volumes", {"volume": {"name": name, "size": size, **fields}})["volume"]["id"])

    def made(self, name: str, size: int = 1, **fields: Any) -> str:
        """The id of a new volume once it is available."""
        volume_id = self.create_volume(name, size, **fields)
        self.settle(600)
        volume = self.volume(volume_id)
        assert volume["status"] == "available", (volume, self.operations(volume_id))
        return volume_id

    def attachments(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/brickyard/v1/attachments?all_projects=true")["attachments"]
        return found

    def usage(self) -> dict[str, int]:
        """What quota counts, reserved included."""
        quota = self.get(f"/v3/os-quota-sets/{self.project}?usage=True")["quota_set"]
        return {name: quota[name]["in_use"] + quota[name]["reserved"] for name in ("volumes", "gigabytes", "snapshots")}

    def encrypted_type(self, name: str = "secret", provider: str = "luks") -> str:
        type_id = self.post("/v3/types", {"volume_type": {"name": name}})["volume_type"]["id"]
        self.post(f"/v3/types/{type_id}/encryption", {"encryption": {"provider": provider}})
        return name

    def image(self, name: str, disk_format: str, content: bytes, **encryption: Any) -> str:
        """Register an image and upload its bytes."""
        body: dict[str, Any] = {"name": name, "disk_format": disk_format}
        if encryption:
            body["encryption"] = encryption
        image_id = str(self.post("/brickyard/v1/images", {"image": body})["image"]["id"])
        self.call("PUT", f"/image/v2/images/{image_id}/file", content)
        return image_id
