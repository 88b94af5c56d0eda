"""The public API over a real image store: identity, engine, data port, all in the test's own event loop."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from coordinator.api.app import make_app
from coordinator.api.dispatch import Hooks
from coordinator.api.resources import all_resources
from coordinator.api.services import Services
from coordinator.api.settings import ApiSettings
from coordinator.identity import passwords
from coordinator.identity.bootstrap import bootstrap
from coordinator.identity.keys import TokenKeys
from coordinator.identity.local import LocalIdentity
from coordinator.identity.policy import Policy
from coordinator.identity.settings import IdentitySettings
from coordinator.identity.strategies import authenticator
from coordinator.keys.store import KeyStore
from coordinator.operations.engine import Engine
from coordinator.operations.image_streams import ImageStreams
from coordinator.state import identity
from tests.unit.coordinator.operations.imagesite import ImageSite, image_site

PASSWORD = "correct horse battery"


@dataclass
class Server:
    url: str
    site: ImageSite
    identity: LocalIdentity
    crashes: list[Any] = field(default_factory=list)

    def openrc(self, user: str = "admin", project: str = "admin", password: str = PASSWORD) -> dict[str, str]:
        return {
            "OS_AUTH_URL": f"{self.url}/identity",
            "OS_USERNAME": user,
            "OS_PASSWORD": password,
            "OS_PROJECT_NAME": project,
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_IDENTITY_API_VERSION": "3",
            "OS_AUTH_TYPE": "password",
        }

    def add_user(self, name: str, project: str, role: str) -> None:
        """A user with one role in a project, both made when they are not there yet."""

        def run(conn: Any) -> None:
            found = identity.by_name(conn, "project", project, "default")
            project_id = found.id if found else identity.add(conn, "project", domain_id="default", name=project)
            stored = passwords.hashed(PASSWORD, 4)
            user_id = identity.add(conn, "user", domain_id="default", name=name, password_hash=stored, enabled=True)
            role_id = identity.by_name(conn, "role", role).id
            identity.grant(conn, user_id, "project", project_id, role_id)

        self.site.db.write_now(run)

    @asynccontextmanager
    async def session(self, user: str = "admin", project: str = "admin") -> AsyncIterator[aiohttp.ClientSession]:
        """An HTTP session with a token; paths are relative to the server."""
        async with aiohttp.ClientSession(self.url) as session:
            domain = {"id": "default"}
            login = {
                "identity": {"methods": ["password"], "password": {"user": {
                    "name": user, "domain": domain, "password": PASSWORD}}},
                "scope": {"project": {"name": project, "domain": domain}},
            }  # fmt: skip
            async with session.post("/identity/v3/auth/tokens", json={"auth": login}) as answer:
                assert answer.status == 201, await answer.text()
                session.headers["X-Auth-Token"] = answer.headers["X-Subject-Token"]
            yield session

    async def openstack(self, *words: str, user: str = "admin", project: str = "admin") -> tuple[int, str, str]:
        """(exit code, stdout, stderr) of the real command."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        command = str(Path(sys.executable).with_name("openstack"))
        process = await asyncio.create_subprocess_exec(
            command, *words, env={**kept, **self.openrc(user, project)}, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()


@asynccontextmanager
async def image_server(folder: Path, networks: tuple[str, ...] = ()) -> AsyncIterator[Server]:
    async with image_site(folder, networks) as site:
        settings = IdentitySettings(bcrypt_rounds=4)
        site.db.write_now(lambda conn: bootstrap(conn, PASSWORD, rounds=4))
        local = LocalIdentity(site.db, TokenKeys(folder / "token-keys.json", settings.token_lifetime), settings)
        others = {LocalIdentity: local, Engine: site.engine, KeyStore: site.keys, ImageStreams: site.streams}
        services = Services(
            site.db, Policy.builtin(), authenticator(local), ApiSettings(response_validation="error"), others
        )
        crashes: list[Any] = []

        async def crashed(crash: Any) -> None:
            crashes.append(crash)

        runner = web.AppRunner(make_app(all_resources(), services, Hooks(crashed=crashed)), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield Server(f"http://127.0.0.1:{runner.addresses[0][1]}", site, local, crashes)
            assert crashes == []
        finally:
            await runner.cleanup()
            local.close()
