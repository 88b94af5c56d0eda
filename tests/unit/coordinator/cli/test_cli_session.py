"""The session against a real socket: logging in, paging, errors of every form, connections that break."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.errors import BrickyardError, known_errors
from coordinator.cli.client import errors
from coordinator.cli.client.context import found, pairs
from coordinator.cli.client.credentials import exports, read
from coordinator.cli.client.errors import NoCredentials, NotTheApi, Unreachable, of_body
from coordinator.cli.client.session import Session

ENV = {"OS_USERNAME": "u", "OS_PASSWORD": "p w", "OS_PROJECT_NAME": "proj"}


def _public(url: str) -> dict[str, str]:
    return {"interface": "public", "url": url}


class Api(http.server.ThreadingHTTPServer):
    """Answers of a test by (method, path); `seen` holds what came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.answers: dict[str, Any] = {}
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        urls = {"identity": "/identity", "block-storage": "/v3", "image": "/image"}
        self.catalog = [{"type": kind, "endpoints": [_public(self.url + path)]} for kind, path in urls.items()]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Api

    def log_message(self, *_: Any) -> None:
        return

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((f"{self.command} {self.path}", dict(self.headers), body))
        status, answer, headers = 404, b"{}", {}
        if self.path.endswith("/auth/tokens"):
            token = {"user": {"id": "uid"}, "project": {"id": "pid"}, "catalog": self.server.catalog}
            status, answer, headers = 201, json.dumps({"token": token}).encode(), {"X-Subject-Token": "T-1"}
        elif f"{self.command} {self.path}" in self.server.answers:
            status, answer = self.server.answers[f"{self.command} {self.path}"]
        if status == 0:
            self.close_connection = True
            return
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(raw))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_PUT = do_DELETE = _any


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def session(api: Api) -> Iterator[Session]:
    made = Session(read({**ENV, "OS_AUTH_URL": f"{api.url}/identity/v3"}))
    yield made
    made.close()


def test_one_login_serves_all_calls(api: Api, session: Session) -> None:
    api.answers["GET /v3/volumes/x?limit=1"] = (200, {"volume": {}})
    for _ in range(2):
        assert session.get("/v3/volumes/x", limit=1) == {"volume": {}}
    assert [line for line, _, _ in api.seen].count("POST /identity/v3/auth/tokens") == 1
    assert api.seen[-1][1]["X-Auth-Token"] == "T-1"
    assert api.seen[-1][1]["OpenStack-API-Version"] == "volume 3.71"
    asked = json.loads(api.seen[0][2])["auth"]
    assert asked["identity"]["password"]["user"] == {"name": "u", "domain": {"id": "default"}, "password": "p w"}
    assert asked["scope"]["project"] == {"name": "proj", "domain": {"id": "default"}}
    assert session.own_project() == "pid"


def test_lists_are_read_page_after_page(api: Api, session: Session) -> None:
    api.answers["GET /v3/volumes"] = (200, {"volumes": [{"id": "a"}], "volumes_links": [{"rel": "next"}]})
    api.answers["GET /v3/volumes?marker=a"] = (200, {"volumes": [{"id": "b"}]})
    api.answers["GET /brickyard/v1/keys"] = (200, {"keys": [{"id": "1"}], "next_marker": "1"})
    api.answers["GET /brickyard/v1/keys?marker=1"] = (200, {"keys": [], "next_marker": None})
    assert [item["id"] for item in session.pages("/v3/volumes", "volumes")] == ["a", "b"]
    assert [item["id"] for item in session.pages("/brickyard/v1/keys", "keys")] == ["1"]


CASES = [
    (404, {"itemNotFound": {"code": 404, "message": "No volume x."}}, 4, "No volume x."),
    (400, {"badRequest": {"code": 400, "message": "No."}}, 2, "No."),
    (413, {"overLimit": {"code": 413, "message": "Too much."}}, 8, "Too much."),
    (401, {"error": {"code": 401, "message": "Who?", "title": "Unauthorized"}}, 3, "Who?"),
    (409, {"error": {"code": "volume.busy", "message": "Busy.", "hint": "Wait.", "status": 409}}, 5, "Busy."),
    (500, b"<html>", 1, "The API answered 500."),
    (503, [], 7, "The API answered 503."),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case[0]))
def test_errors_of_every_form(api: Api, session: Session, case: tuple[int, Any, int, str]) -> None:
    status, answer, code, words = case
    api.answers["GET /v3/x"] = (status, answer)
    with pytest.raises(BrickyardError) as caught:
        session.get("/v3/x")
    assert (caught.value.exit_code, str(caught.value), caught.value.status) == (code, words, status)
    assert "body" not in caught.value.to_body()["context"]


def test_a_kept_connection_that_was_closed_is_opened_again(api: Api, session: Session) -> None:
    api.answers["GET /v3/a"] = (200, {})
    session.get("/v3/a")
    for connection in session._connections.values():
        assert connection.sock is not None
        connection.sock.close()
        connection.sock = None
    assert session.get("/v3/a") == {}


def test_what_is_not_the_api_is_told(api: Api, session: Session) -> None:
    api.answers["GET /v3/a"] = (200, b"<html>")
    with pytest.raises(NotTheApi):
        session.get("/v3/a")


def test_nobody_listens() -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1 does not answer"):
        Session(read({**ENV, "OS_AUTH_URL": "http://127.0.0.1:1/identity"})).get("/v3/x")


def test_a_changing_call_is_never_sent_twice(api: Api, session: Session) -> None:
    api.answers["GET /v3/a"] = (200, {})
    session.get("/v3/a")
    api.answers["POST /v3/a"] = (0, b"")
    with pytest.raises(Unreachable):
        session.call("POST", "/v3/a", {})
    assert [line for line, _, _ in api.seen].count("POST /v3/a") == 1


def test_upload_streams_with_its_length(api: Api, session: Session) -> None:
    api.answers["PUT /image/v2/images/i/file"] = (200, {})
    session.upload("/image/v2/images/i/file", iter([b"ab", b"cd"]), 4)
    assert api.seen[-1][2] == b"abcd"


def test_names_are_looked_up_and_must_be_one(api: Api, session: Session) -> None:
    two = [{"id": "1", "name": "n"}, {"id": "2", "name": "n"}, {"id": "3", "name": "m"}]
    api.answers["GET /v3/volumes/detail"] = (200, {"volumes": two})
    assert found(session, "volume", "/v3/volumes", "volumes", "m")["id"] == "3"
    with pytest.raises(errors.Ambiguous, match="2 volumes are named n"):
        found(session, "volume", "/v3/volumes", "volumes", "n")
    with pytest.raises(errors.NoSuch):
        found(session, "volume", "/v3/volumes", "volumes", "11111111-2222-4333-8444-555555555555")


@pytest.mark.parametrize("missing", ["OS_AUTH_URL", "OS_USERNAME", "OS_PASSWORD"])
def test_a_missing_variable_is_named(missing: str) -> None:
    values = {**ENV, "OS_AUTH_URL": "http://x"}
    del values[missing]
    with pytest.raises(NoCredentials, match=missing):
        read(values)


def test_no_password_in_the_representation() -> None:
    assert "p w" not in repr(read({**ENV, "OS_AUTH_URL": "http://x"}))


def test_an_openrc_is_read_not_run() -> None:
    text = "#!/bin/sh\nexport OS_USERNAME='it''s'\nOS_PASSWORD=\"a b\"  # secret\nexport A=1 B=2\nrm -rf /\n'broken\n"
    assert exports(text) == {"OS_USERNAME": "its", "OS_PASSWORD": "a b", "A": "1", "B": "2"}


@given(st.text(max_size=200))
def test_any_text_is_an_openrc_that_sets_something_or_nothing(text: str) -> None:
    assert all(name.isidentifier() for name in exports(text))


def test_codes_end_as_their_own_classes_do() -> None:
    import coordinator.operations.errors
    import coordinator.quota.errors
    import coordinator.quota.tree
    import coordinator.scheduler.errors  # noqa: F401

    assert of_body({"code": "quota.volumes"}).exit_code == 8
    for code, cls in known_errors().items():
        if code.startswith(("quota.", "scheduler.", "operation.cancelled")):
            assert of_body({"code": code, "status": cls.status}).exit_code == cls.exit_code, code


def test_pairs_want_a_key_and_a_value() -> None:
    import click

    assert pairs(["a=b=c", "d="], "--property") == {"a": "b=c", "d": ""}
    with pytest.raises(click.UsageError):
        pairs(["a"], "--property")
