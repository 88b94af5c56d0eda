"""Strategy `keystone` against a real Keystone: personas, scopes, service tokens, revoked and expired ones, outages."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from pydantic import SecretStr

from coordinator.api.app import make_app
from coordinator.api.resources import all_resources
from coordinator.api.services import Services
from coordinator.api.settings import ApiSettings
from coordinator.identity.keystone import KeystoneAuthenticator
from coordinator.identity.policy import Policy
from coordinator.identity.settings import KeystoneSettings
from coordinator.state.database import Database
from coordinator.state.schema import prepare
from tests.support.keystone import Keystone, keystone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PASSWORD = "pass word"


@pytest.fixture(scope="module")
def stone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    with keystone(tmp_path_factory.mktemp("keystone") / "home") as found:
        service, one, two = (found.project(name) for name in ("service", "one", "two"))
        found.user("brickyard", PASSWORD, service, "service", "admin")
        found.user("nova", PASSWORD, service, "service")
        for name, project, role in (("ann", one, "member"), ("rob", one, "reader"), ("bea", two, "member")):
            found.user(name, PASSWORD, project, role)
        yield found


def settings(stone: Keystone, **more: Any) -> KeystoneSettings:
    # A busy machine makes Keystone slow; what is tested is what it says.
    return KeystoneSettings(auth_url=stone.url, password=SecretStr(PASSWORD), **{"timeout_s": 60.0, **more})


@asynccontextmanager
async def api(tmp_path: Path, section: KeystoneSettings) -> AsyncIterator[Any]:
    """`await call(token, path)` gives status and body."""
    db = Database.sqlite(tmp_path / "state.db")
    db.write_now(prepare)
    authenticator = KeystoneAuthenticator(section)
    services = Services(db, Policy.builtin(), authenticator, ApiSettings(response_validation="error"))
    runner = web.AppRunner(make_app(all_resources(), services), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:

            async def call(
                token: str, path: str = "/v3/volumes", method: str = "GET", body: Any = None, **headers: str
            ) -> Any:
                sent = {"X-Auth-Token": token, "OpenStack-API-Version": "volume 3.71", **headers}
                async with session.request(method, path, headers=sent, json=body) as answer:
                    return answer.status, dict(answer.headers), await answer.text()

            yield call
    finally:
        await runner.cleanup()
        db.close()


async def test_who_may_do_what(stone: Keystone, tmp_path: Path) -> None:
    admin = stone.token("admin", "bootstrap secret", project="admin")
    ann, rob, bea = (stone.token(name, PASSWORD, project=project) for name, project in
                     (("ann", "one"), ("rob", "one"), ("bea", "two")))  # fmt: skip
    system = stone.token("admin", "bootstrap secret", system=True)
    one = stone.call("GET", "/projects?name=one")["projects"][0]["id"]
    async with api(tmp_path, settings(stone)) as call:
        assert [(await call(token))[0] for token in (admin, ann, rob, bea)] == [200] * 4
        assert [(await call(token, "/v3/os-services"))[0] for token in (admin, system, ann, rob)] == [
            200,
            200,
            403,
            403,
        ]
        assert (await call(ann, f"/v3/{one}/volumes"))[0] == 200
        assert (await call(bea, f"/v3/{one}/volumes"))[0] == 400
        status, headers, _ = await call("gAAAA-not-a-token")
        assert (status, headers["WWW-Authenticate"]) == (401, f'Keystone uri="{stone.url}"')
        assert (await call("\u00e4"))[0] == 401


async def test_quotas_are_set_for_projects_that_are_there(stone: Keystone, tmp_path: Path) -> None:
    admin = stone.token("admin", "bootstrap secret", project="admin")
    one = stone.call("GET", "/projects?name=one")["projects"][0]["id"]
    async with api(tmp_path, settings(stone)) as call:
        for project, wanted in ((one, 200), (one, 200), ("f" * 32, 404), ("no~project", 404)):
            body = {"quota_set": {"volumes": 7}}
            status, _, text = await call(admin, f"/v3/os-quota-sets/{project}", "PUT", body)
            assert status == wanted, text
        assert (await call(admin, f"/v3/os-quota-sets/{'f' * 32}", "DELETE"))[0] == 200, "what is left can be removed"


async def test_a_revoked_token_is_refused_when_it_is_forgotten(stone: Keystone, tmp_path: Path) -> None:
    token, other = (stone.token("ann", PASSWORD, project="one") for _ in range(2))
    async with api(tmp_path, settings(stone, cache_s=0)) as call:
        assert (await call(token))[0] == 200
        stone.revoke(token)
        assert (await call(token))[0] == 401
        assert (await call(other))[0] == 200


async def test_a_service_vouches_for_an_expired_token(stone: Keystone, tmp_path: Path) -> None:
    nova = stone.token("nova", PASSWORD, project="service")
    async with api(tmp_path, settings(stone)) as call:
        token = stone.token("ann", PASSWORD, project="one")
        assert (await call(token, **{"X-Service-Token": nova}))[0] == 200
        assert (await call(token, **{"X-Service-Token": "no"}))[0] == 401
        rob = stone.token("rob", PASSWORD, project="one")
        assert (await call(token, **{"X-Service-Token": rob}))[0] == 200


async def test_one_token_is_asked_for_once(stone: Keystone, tmp_path: Path) -> None:
    token = stone.token("ann", PASSWORD, project="one")
    found = KeystoneAuthenticator(settings(stone))
    asked = []
    real = found._user.ask

    async def counted(method: str, path: str, **more: Any) -> Any:
        asked.append((method, path.partition("?")[0]))
        return await real(method, path, **more)

    found._user.ask = counted  # type: ignore[method-assign]
    import asyncio

    proofs = await asyncio.gather(*(found.authenticate({"X-Auth-Token": token}, None, None) for _ in range(20)))
    assert {proof[0].user_name for proof in proofs} == {"ann"}
    assert asked == [("POST", "/auth/tokens"), ("GET", "/auth/tokens")]
    await found.authenticate({"X-Auth-Token": token}, None, None)
    assert len(asked) == 2
    found._user._own = ("gone", time.time() + 1000)
    other = stone.token("bea", PASSWORD, project="two")
    assert (await found.authenticate({"X-Auth-Token": other}, None, None))[0].user_name == "bea"
    await found.close()


async def test_outages_are_told_and_let_nobody_in(stone: Keystone, tmp_path: Path) -> None:
    token = stone.token("ann", PASSWORD, project="one")
    away = KeystoneSettings(auth_url="http://127.0.0.1:9/v3", password=SecretStr(PASSWORD))
    for name, section in (
        ("away", away),
        ("refused", settings(stone, username="nobody")),
    ):
        (tmp_path / name).mkdir()
        async with api(tmp_path / name, section) as call:
            status, headers, body = await call(token)
            assert (status, "Retry-After" in headers) == (503, True), body
            assert PASSWORD not in body
