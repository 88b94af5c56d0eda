"""Quota shared out in the tree of projects of a real Keystone: who may change and see what, through the API."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web
from pydantic import SecretStr

from agent.base.ids import new_id
from coordinator.api.app import make_app
from coordinator.api.project_tree import ProjectTree
from coordinator.api.resources import all_resources
from coordinator.api.services import Services
from coordinator.api.settings import ApiSettings
from coordinator.identity.keystone import KeystoneAuthenticator
from coordinator.identity.policy import Policy
from coordinator.identity.settings import KeystoneSettings
from coordinator.quota import guard, limits
from coordinator.quota.settings import QuotaSettings
from coordinator.state import hierarchy
from coordinator.state.database import Database
from coordinator.state.schema import prepare
from coordinator.state.transition import enter, move
from coordinator.state.usage import RULES, Rules
from tests.support.keystone import PASSWORD, Keystone, keystone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
COMMAND = Path(sys.executable).parent / "brickyard-coordinator"
A, B, C, D = "quota-a", "quota-b", "quota-c", "quota-d"


@pytest.fixture(scope="module")
def stone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystone]:
    with keystone(tmp_path_factory.mktemp("keystone") / "home", admin_project=True) as found:
        service, a = found.project("service"), found.project(A)
        b = found.project(B, a)
        c, d = found.project(C, b), found.project(D, b)
        found.user("brickyard", PASSWORD, service, "service", "admin")
        for name, project in (("anna", a), ("bert", b), ("cleo", c), ("dora", d)):
            found.user(name, PASSWORD, project, "admin")
        yield found


@asynccontextmanager
async def api(tmp_path: Path, stone: Keystone) -> AsyncIterator[Any]:
    """`await call(token, method, path, body)` gives status and body."""
    db = Database.sqlite(tmp_path / "state.db")
    db.write_now(prepare)
    db.engine.update_execution_options(**{RULES: Rules(nested=True)})
    # A busy machine makes Keystone slow; what is tested is what it says.
    prover = KeystoneAuthenticator(
        KeystoneSettings.model_validate({"auth_url": stone.url, "password": SecretStr(PASSWORD), "timeout_s": 60.0})
    )
    services = Services(
        db, Policy.builtin(), prover, ApiSettings(response_validation="error"),
        others={ProjectTree: ProjectTree(db, prover)},
    )  # fmt: skip
    runner = web.AppRunner(make_app(all_resources(), services), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:

            async def call(token: str, method: str, path: str, body: Any = None) -> Any:
                headers = {"X-Auth-Token": token, "OpenStack-API-Version": "volume 3.71"}
                async with session.request(method, f"/v3/os-quota-sets/{path}", headers=headers, json=body) as answer:
                    return answer.status, await answer.json(content_type=None)

            yield call, db
    finally:
        await prover.close()
        await runner.cleanup()
        db.close()


def used(db: Database, project: str, size: int) -> None:
    def write(conn: Any) -> None:
        values = {"id": new_id(), "project_id": project, "user_id": "u", "size": size, "volume_type_id": None}
        move(conn, "volume", enter(conn, "volume", "create", **values).id, "created")

    db.write_now(write)


async def test_the_tree_of_a_real_keystone(stone: Keystone, tmp_path: Path) -> None:
    a, b, c = (stone.call("GET", f"/projects?name={name}")["projects"][0]["id"] for name in (A, B, C))
    cloud = stone.token("admin", PASSWORD, project="admin")
    anna, bert, cleo, dora = (
        stone.token(name, PASSWORD, project=project)
        for name, project in (("anna", A), ("bert", B), ("cleo", C), ("dora", D))
    )
    async with api(tmp_path, stone) as (call, db):

        async def put(token: str, project: str, limit: int) -> int:
            return int((await call(token, "PUT", project, {"quota_set": {"gigabytes": limit}}))[0])

        async def handed_down(token: str, project: str) -> Any:
            _, body = await call(token, "GET", f"{project}?usage=True")
            return body["quota_set"]["gigabytes"]

        # A root is the cloud's alone; below it each level is its parent's.
        assert await put(anna, a, 100) == 403
        assert [await put(cloud, a, 100), await put(anna, b, 50), await put(bert, c, 10)] == [200, 200, 200]
        for token, project in ((anna, c), (cleo, c), (cleo, b), (bert, b)):
            assert await put(token, project, 12) == 403
        for project in (b, c):  # No limit of their own: what they use counts to the one above.
            assert (await call(cloud, "PUT", project, {"quota_set": {"volumes": -1}}))[0] == 200
        used(db, b, 20)
        used(db, c, 10)
        assert await handed_down(anna, a) == {"limit": 100, "in_use": 0, "reserved": 0, "allocated": 50}
        assert await handed_down(bert, b) == {"limit": 50, "in_use": 20, "reserved": 0, "allocated": 10}
        assert await put(bert, c, 20) == 200
        assert (await handed_down(bert, b))["allocated"] == 20
        status, body = await call(bert, "PUT", c, {"quota_set": {"gigabytes": 40}})
        assert (status, "which has 10 free" in body["badRequest"]["message"]) == (400, True)
        assert (await handed_down(bert, c))["limit"] == 20
        assert await put(anna, b, 40) == 200
        assert (await handed_down(anna, a))["allocated"] == 40
        assert await put(anna, b, 20) == 400
        # Who is above may look; beside and below may not.
        assert [(await call(one, "GET", c))[0] for one in (cloud, anna, bert, cleo)] == [200] * 4
        assert [(await call(one, "GET", b))[0] for one in (cleo, dora)] == [403, 403]
        assert (await call(dora, "GET", c))[0] == 403
        # What was never given is nothing.
        _, body = await call(bert, "GET", f"{id_of(stone, D)}/defaults")
        assert (body["quota_set"]["volumes"], body["quota_set"]["gigabytes"]) == (0, 0)
        assert (await call(anna, "DELETE", b))[0] == 400
        assert (await call(cloud, "GET", "validate_setup_for_nested_quota_use"))[0] == 200
        # Its project is gone in Keystone first: the share stays until it is deleted by hand.
        stone.call("DELETE", f"/projects/{c}")
        assert (await handed_down(bert, b))["allocated"] == 20
        assert (await call(bert, "DELETE", c))[0] == 200
        assert db.read_now(lambda conn: hierarchy.ancestors(conn, c)) == [b, a]


def id_of(stone: Keystone, name: str) -> str:
    return str(stone.call("GET", f"/projects?name={name}")["projects"][0]["id"])


def test_a_site_is_turned_by_a_command_and_serves_after_that(stone: Keystone, tmp_path: Path) -> None:
    """The command asks the Keystone what lies above; refused while a project has less than those below it take."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    e = stone.project("quota-e")
    f = stone.project("quota-f", e)
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    password.chmod(0o400)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sets = {
        "coordinator.state_dir": folder, "coordinator.port": port, "enrolment.port": 0, "identity.strategy": "keystone",
        "identity.keystone.auth_url": stone.url, "identity.keystone.password_file": password,
        "identity.keystone.timeout_s": 60, "quota.nested": "true",
    }  # fmt: skip
    given = [f"--set={key}={value}" for key, value in sets.items()]

    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run([COMMAND, *words, *given], capture_output=True, text=True, timeout=180, check=False)
        return done.returncode, done.stdout + done.stderr

    def flat() -> Database:
        return Database.sqlite(folder / "coordinator.db")

    with closing(flat()) as db:
        db.write_now(prepare)
        used(db, f, 12)
        db.write_now(lambda conn: limits.put(conn, e, {"gigabytes": 10, "volumes": 5}))
        db.write_now(lambda conn: guard.check(conn, QuotaSettings.model_validate({})))
    code, told = run("quota", "change")
    assert (code, "has 10 gigabytes, 12 are used or handed down" in told) == (2, True), told
    with closing(flat()) as db:
        db.write_now(lambda conn: limits.put(conn, e, {"gigabytes": 20}))
    code, told = run("quota", "change")
    assert (code, told.strip()) == (0, "quota.nested: false -> true"), told
    process = subprocess.Popen([COMMAND, "serve", *given], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        token = stone.token("admin", PASSWORD, project="admin")
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v3/os-quota-sets/{e}?usage=True", headers={"X-Auth-Token": token}
        )
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(request, timeout=90) as answer:
                    body = json.loads(answer.read())
                break
            except OSError:
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.2)
        assert body["quota_set"]["gigabytes"] == {"limit": 20, "in_use": 0, "reserved": 0, "allocated": 12}
    finally:
        process.terminate()
        process.communicate(timeout=60)
