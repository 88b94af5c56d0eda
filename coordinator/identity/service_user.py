"""This service as a user of a Keystone: its token, and where the catalog says that other services are."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp

from coordinator.identity.errors import KeystoneAway, KeystoneRefusesUs, NotInCatalog
from coordinator.identity.settings import KeystoneSettings

TOKENS = "/auth/tokens"
_EARLY_S = 60.0


class ServiceUser:
    """Lives on one event loop; end it with `close()`. A log-in lasts until shortly before its token runs out."""

    def __init__(self, settings: KeystoneSettings) -> None:
        self._settings = settings
        self.url = settings.auth_url.rstrip("/")
        if not self.url.endswith("/v3"):
            self.url += "/v3"
        self._session: aiohttp.ClientSession | None = None
        self._own: tuple[str, float] | None = None
        self._catalog: list[Mapping[str, Any]] = []
        self._login = asyncio.Lock()

    @property
    def name(self) -> str:
        return self._settings.username

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def token(self, *, fresh: bool = False) -> str:
        """A token of our own; `fresh` after somebody did not take the one we had. KeystoneAway, KeystoneRefusesUs."""
        had = self._own
        if had is not None and not fresh and had[1] > time.time() + _EARLY_S:
            return had[0]
        async with self._login:
            if self._own is not None and self._own is not had:
                return self._own[0]
            settings = self._settings
            user = {
                "name": settings.username,
                "password": settings.secret(),
                "domain": {"name": settings.user_domain_name},
            }
            project = {"name": settings.project_name, "domain": {"name": settings.project_domain_name}}
            identity = {"methods": ["password"], "password": {"user": user}}
            wanted = {"auth": {"identity": identity, "scope": {"project": project}}}
            status, headers, body = await self.ask("POST", TOKENS, json=wanted)
            if status in {401, 403, 404}:
                raise KeystoneRefusesUs(user=settings.username)
            token = headers.get("X-Subject-Token")
            if status != 201 or not token:
                raise KeystoneAway(url=self.url, reason=f"a login was answered with {status}.")
            said = token_of(body)
            catalog = said.get("catalog")
            self._catalog = [part for part in catalog if isinstance(part, dict)] if isinstance(catalog, list) else []
            self._own = token, expiry(said)
            return token

    async def endpoint(self, types: Iterable[str], interface: str, region: str | None) -> str:
        """The address of the first service of one of these types, without a slash at its end; raises NotInCatalog."""
        await self.token()
        wanted = tuple(types)
        for service in (part for name in wanted for part in self._catalog if part.get("type") == name):
            for endpoint in service.get("endpoints") or ():
                here = region is None or region in {endpoint.get("region"), endpoint.get("region_id")}
                if here and endpoint.get("interface") == interface and endpoint.get("url"):
                    return str(endpoint["url"]).rstrip("/")
        raise NotInCatalog(types=" or ".join(wanted), interface=interface, region=region or "any", url=self.url)

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Mapping[str, str], Any]:
        """One call of the Keystone: status, headers, body; raises KeystoneAway."""
        session = self.session()
        try:
            async with session.request(method, f"{self.url}{path}", allow_redirects=False, **more) as answer:
                body = await answer.json() if answer.content_type == "application/json" else None
                return answer.status, answer.headers, body
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise KeystoneAway(url=self.url, reason=f"{str(error) or 'no answer in time'}.") from None

    def session(self) -> aiohttp.ClientSession:
        """For calls of services of the same cloud, with its certificates."""
        if self._session is None:
            context = self._settings.tls()
            connector = aiohttp.TCPConnector(ssl=context) if context is not None else aiohttp.TCPConnector(ssl=True)
            timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        return self._session


def token_of(body: Any) -> dict[str, Any]:
    """What an answer says of a token; empty for another kind of answer."""
    found = body.get("token") if isinstance(body, dict) else None
    return found if isinstance(found, dict) else {}


def expiry(token: Mapping[str, Any]) -> float:
    """Seconds since 1970; the past for what can not be read."""
    try:
        return datetime.datetime.fromisoformat(str(token.get("expires_at"))).timestamp()
    except ValueError:
        return 0.0
