"""The public API in a thread, with the built-in identity service, for clients that block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from coordinator.api.app import make_app
from coordinator.api.dispatch import Hooks
from coordinator.api.resources import all_resources
from coordinator.api.services import Services
from coordinator.api.settings import ApiSettings
from coordinator.identity.bootstrap import bootstrap
from coordinator.identity.keys import TokenKeys
from coordinator.identity.local import LocalIdentity
from coordinator.identity.policy import Policy
from coordinator.identity.settings import IdentitySettings
from coordinator.identity.strategies import authenticator
from coordinator.scheduler.placement import Scheduler
from coordinator.state.database import Database
from coordinator.state.tables import load_all

PASSWORD = "correct horse battery"


@dataclass
class Server:
    """`url` has no slash at its end."""

    url: str
    db: Database
    identity: LocalIdentity
    crashes: list[Any] = field(default_factory=list)

    def openrc(self, user: str = "admin", project: str = "admin", password: str = PASSWORD) -> dict[str, str]:
        """The environment of a client."""
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


@contextmanager
def running(tmp_path: Path, *, others: Mapping[type, Any] | None = None, **identity: Any) -> Iterator[Server]:
    """A server on a free port of loopback, with user admin; stopped at the end."""
    db = Database.sqlite(tmp_path / "state.db")
    load_all().create_all(db.engine)
    settings = IdentitySettings(bcrypt_rounds=4, **identity)
    db.write_now(lambda conn: bootstrap(conn, PASSWORD, rounds=4))
    local = LocalIdentity(db, TokenKeys(tmp_path / "token-keys.json", settings.token_lifetime), settings)
    services = Services(
        db,
        Policy.builtin(),
        authenticator(local),
        ApiSettings(response_validation="error"),
        {LocalIdentity: local, Scheduler: Scheduler(), **(others or {})},
    )
    crashes: list[Any] = []

    async def crashed(crash: Any) -> None:
        crashes.append(crash)

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="api")
    thread.start()
    runner = web.AppRunner(make_app(all_resources(), services, Hooks(crashed=crashed)), access_log=None)

    async def start() -> int:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    try:
        port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
        yield Server(f"http://127.0.0.1:{port}", db, local, crashes)
        assert crashes == []
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        local.close()
        db.close()
