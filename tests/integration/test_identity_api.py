"""Tokens over HTTP: what is refused, when, and how."""

from __future__ import annotations

import pytest
from aiohttp import ClientSession, encode_basic_auth

from tests.integration.apiserver import PASSWORD, running


@pytest.fixture
def server(tmp_path):
    with running(tmp_path, failures_allowed=4) as server:
        yield server


def auth(name="admin", password=PASSWORD, project="admin", scope=None):
    user = {"name": name, "domain": {"name": "Default"}, "password": password}
    body = {"identity": {"methods": ["password"], "password": {"user": user}}}
    if scope is not None:
        body["scope"] = scope
    elif project is not None:
        body["scope"] = {"project": {"name": project, "domain": {"id": "default"}}}
    return {"auth": body}


async def login(http, **who):
    async with http.post("/identity/v3/auth/tokens", json=auth(**who)) as answer:
        return answer.status, answer.headers.get("X-Subject-Token"), await answer.json()


async def code(http, method, path, token, **kwargs):
    headers = {"X-Auth-Token": token, **kwargs.pop("headers", {})}
    async with http.request(method, path, headers=headers, **kwargs) as answer:
        return answer.status


async def member(http, admin, name="rita"):
    """A project and a member of it; returns (user id, project id)."""
    headers = {"X-Auth-Token": admin}
    async with http.post("/identity/v3/projects", json={"project": {"name": f"p-{name}"}}, headers=headers) as answer:
        project = (await answer.json())["project"]["id"]
    body = {"user": {"name": name, "password": PASSWORD, "default_project_id": project}}
    async with http.post("/identity/v3/users", json=body, headers=headers) as answer:
        user = (await answer.json())["user"]
        assert "password" not in str(user).replace("password_expires_at", "")
    async with http.get("/identity/v3/roles?name=member", headers=headers) as answer:
        role = (await answer.json())["roles"][0]["id"]
    path = f"/identity/v3/projects/{project}/users/{user['id']}/roles/{role}"
    assert await code(http, "PUT", path, admin) == 204
    assert await code(http, "HEAD", path, admin) == 204
    return user["id"], project


async def test_log_in_show_and_out(server):
    async with ClientSession(server.url) as http:
        status, token, body = await login(http)
        assert status == 201
        assert {role["name"] for role in body["token"]["roles"]} == {"admin", "member", "reader"}
        kinds = {entry["type"]: entry["endpoints"][0]["url"] for entry in body["token"]["catalog"]}
        assert kinds["volumev3"] == f"{server.url}/v3/{body['token']['project']['id']}"
        assert kinds["block-storage"] == f"{server.url}/v3"
        assert kinds["image"] == f"{server.url}/image"
        assert await code(http, "GET", "/identity/v3/auth/tokens", token, headers={"X-Subject-Token": token}) == 200
        assert await code(http, "HEAD", "/identity/v3/auth/tokens", token, headers={"X-Subject-Token": token}) == 200
        assert await code(http, "GET", "/identity/v3/auth/tokens", token, headers={"X-Subject-Token": "x.y.z"}) == 404
        assert await code(http, "DELETE", "/identity/v3/auth/tokens", token, headers={"X-Subject-Token": token}) == 204
        assert await code(http, "GET", "/identity/v3/auth/projects", token) == 401


async def test_wrong_name_password_and_scope_look_the_same(server):
    async with ClientSession(server.url) as http:
        answers = [
            await login(http, password="wrong"),
            await login(http, name="nobody"),
            await login(http, project="nowhere"),
            await login(http, name="service"),
        ]
        assert {status for status, _, _ in answers} == {401}
        assert len({str(body) for _, _, body in answers}) == 1
        assert answers[0][2]["error"]["title"] == "Unauthorized"


async def test_failures_are_limited_per_user(server):
    async with ClientSession(server.url) as http:
        seen = [(await login(http, password=f"guess {n}"))[0] for n in range(6)]
        assert seen == [401, 401, 401, 401, 429, 429]
        assert (await login(http))[0] == 429
        _, _, body = await login(http, name="somebody else")
        assert body["error"]["code"] == 401


async def test_tokens_end_with_password_role_and_user(server):
    async with ClientSession(server.url) as http:
        _, admin, _ = await login(http)
        user, project = await member(http, admin)
        _, token, body = await login(http, name="rita", project=None)
        assert body["token"]["project"]["id"] == project
        assert await code(http, "GET", "/identity/v3/auth/projects", token) == 200
        assert await code(http, "GET", "/identity/v3/users", token) == 403
        assert await code(http, "GET", f"/identity/v3/users/{user}", token) == 200
        change = {"user": {"original_password": PASSWORD, "password": "the next one"}}
        assert await code(http, "POST", f"/identity/v3/users/{user}/password", token, json=change) == 204
        assert await code(http, "GET", "/identity/v3/auth/projects", token) == 401
        assert (await login(http, name="rita"))[0] == 401
        _, token, _ = await login(http, name="rita", password="the next one", project="p-rita")
        off = {"user": {"enabled": False}}
        assert await code(http, "PATCH", f"/identity/v3/users/{user}", admin, json=off) == 200
        assert await code(http, "GET", "/identity/v3/auth/projects", token) == 401
        assert (await login(http, name="rita", password="the next one", project="p-rita"))[0] == 401
        on = {"user": {"enabled": True}}
        assert await code(http, "PATCH", f"/identity/v3/users/{user}", admin, json=on) == 200
        _, token, _ = await login(http, name="rita", password="the next one", project="p-rita")
        assert await code(http, "DELETE", f"/identity/v3/projects/{project}", admin) == 204
        assert await code(http, "GET", "/identity/v3/auth/projects", token) == 401


async def test_a_rescoped_token_does_not_live_longer(server):
    async with ClientSession(server.url) as http:
        _, token, first = await login(http, scope="unscoped", project=None)
        assert "project" not in first["token"]
        body = {
            "auth": {"identity": {"methods": ["token"], "token": {"id": token}}, "scope": {"system": {"all": True}}}
        }
        async with http.post("/identity/v3/auth/tokens", json=body) as answer:
            second = await answer.json()
            assert answer.status == 201
        assert second["token"]["system"] == {"all": True}
        assert second["token"]["expires_at"] == first["token"]["expires_at"]
        assert second["token"]["methods"] == ["password", "token"]


async def test_passwords_are_never_echoed(server):
    async with ClientSession(server.url) as http:
        body = auth()
        body["auth"]["identity"]["password"]["user"]["password"] = {"hunter2": 1}
        async with http.post("/identity/v3/auth/tokens", json=body) as answer:
            assert answer.status == 400
            assert "hunter2" not in await answer.text()
        _, admin, _ = await login(http)
        headers = {"X-Auth-Token": admin}
        async with http.post("/identity/v3/users", json={"user": {"password": "hunter2"}}, headers=headers) as answer:
            assert answer.status == 400
            assert "hunter2" not in await answer.text()
        short = {"user": {"name": "x", "password": "short"}}
        async with http.post("/identity/v3/users", json=short, headers=headers) as answer:
            assert answer.status == 400
            assert "at least 8" in await answer.text()


async def test_conflicts_and_missing(server):
    async with ClientSession(server.url) as http:
        _, admin, _ = await login(http)
        assert await code(http, "POST", "/identity/v3/projects", admin, json={"project": {"name": "admin"}}) == 409
        assert await code(http, "GET", "/identity/v3/users/unknown", admin) == 404
        assert await code(http, "GET", "/identity/v3/projects/unknown", admin) == 404
        assert await code(http, "GET", "/identity/v3/nothing", admin) == 404


def basic(password):
    return {"Authorization": encode_basic_auth("admin", password)}


async def test_http_basic(tmp_path):
    with running(tmp_path, strategy="basic") as server:
        async with ClientSession(server.url) as http:
            path = "/identity/v3/auth/projects"
            async with http.get(path, headers=basic(PASSWORD)) as answer:
                assert (await answer.json())["projects"][0]["name"] == "admin"
            async with http.get(path, headers=basic("wrong")) as answer:
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"].startswith("Basic")
            for header in ("Basic", "Basic !!", "Basic eA==", "Bearer x"):
                async with http.get(path, headers={"Authorization": header}) as answer:
                    assert answer.status == 401


async def test_http_basic_takes_the_project_of_the_path(tmp_path):
    with running(tmp_path, strategy="basic") as server:

        def write(conn):
            from coordinator.identity.bootstrap import ADMIN_USER_ID
            from coordinator.state import identity as state

            state.add(conn, "project", id="c3" * 16, name="three", domain_id="default", enabled=True)
            state.add(conn, "project", id="d4" * 16, name="four", domain_id="default", enabled=True)
            state.grant(conn, ADMIN_USER_ID, "project", "c3" * 16, state.by_name(conn, "role", "reader").id)

        server.db.write_now(write)
        async with ClientSession(server.url) as http:
            async with http.get(f"/v3/{'c3' * 16}/os-quota-sets/{'c3' * 16}", headers=basic(PASSWORD)) as answer:
                assert answer.status == 200
            async with http.get(f"/v3/{'c3' * 16}/os-services", headers=basic(PASSWORD)) as answer:
                assert answer.status == 403
            async with http.get(f"/v3/{'d4' * 16}/types", headers=basic(PASSWORD)) as answer:
                assert answer.status == 401


async def test_none_takes_the_project_of_the_path(tmp_path):
    with running(tmp_path, strategy="none") as server:
        async with ClientSession(server.url) as http:
            async with http.get(f"/v3/{'c3' * 16}/os-quota-sets/{'c3' * 16}") as answer:
                assert (await answer.json())["quota_set"]["id"] == "c3" * 16
            async with http.get("/v3/types", headers={"X-Auth-Token": "bad name!:x"}) as answer:
                assert answer.status == 401
