"""Strategy `keystone`: tokens are proven by a Keystone, asked once in a while for each token."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import secrets
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from coordinator.identity.authenticator import Proof
from coordinator.identity.context import Principal
from coordinator.identity.errors import KeystoneAway, KeystoneRefusesUs, TokenRefused, Unauthorized
from coordinator.identity.memory import Memory
from coordinator.identity.settings import KeystoneSettings

_TOKENS = "/auth/tokens"
_REFUSED_S = 10.0
_EARLY_S = 60.0
_LONGEST = 16384
_NOBODY: frozenset[str] = frozenset()


class KeystoneAuthenticator:
    """Lives on one event loop; end it with `close()`.

    A proven token is remembered for `cache_s`: that long a revoked one may still be taken. A refused one is remembered
    for ten seconds. Without an answer from Keystone nobody is let in (503).
    """

    def __init__(self, settings: KeystoneSettings) -> None:
        self._settings = settings
        self._url = settings.auth_url.rstrip("/")
        if not self._url.endswith("/v3"):
            self._url += "/v3"
        self._proven = Memory[tuple[float, Principal]](settings.cache_s)
        self._refused = Memory[bool](_REFUSED_S)
        self._running: dict[str, asyncio.Future[tuple[float, Principal]]] = {}
        self._salt = secrets.token_bytes(32)
        self._session: aiohttp.ClientSession | None = None
        self._own: tuple[str, float] | None = None
        self._login = asyncio.Lock()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def challenge(self, base_url: str) -> str:
        return f'Keystone uri="{self._settings.auth_url}"'

    async def authenticate(self, headers: Mapping[str, str], address: str | None, project: str | None) -> Proof:
        token = headers.get("X-Auth-Token")
        if not token:
            raise Unauthorized
        service, roles = headers.get("X-Service-Token"), _NOBODY
        if service is not None:
            roles = (await self._verified(service, late=False)).roles
        # A service vouches for a long piece of work: its user's token may have run out meanwhile.
        return await self._verified(token, late="service" in roles), roles

    async def _verified(self, token: str, *, late: bool) -> Principal:
        if len(token) > _LONGEST or not token.isascii() or not token.isprintable():
            raise TokenRefused
        mark = self._hash(f"{late:d}{token}")
        known = self._proven.get(mark)
        if known is not None and (late or known[0] > time.time()):
            return known[1]
        if self._refused.get(mark):
            raise TokenRefused
        running = self._running.get(mark)
        if running is None:
            running = asyncio.ensure_future(self._proved(mark, token, late=late))
            self._running[mark] = running
            running.add_done_callback(lambda done: self._ended(mark, done))
        return (await asyncio.shield(running))[1]

    def _ended(self, mark: str, done: asyncio.Future[tuple[float, Principal]]) -> None:
        self._running.pop(mark, None)
        if not done.cancelled():
            done.exception()  # it has been told to those who waited, if any still did

    async def _proved(self, mark: str, token: str, *, late: bool) -> tuple[float, Principal]:
        body = await self._asked(token, late=late)
        if body is None:
            self._refused.put(mark, True)
            raise TokenRefused
        found = _expiry(body), principal(body)
        self._proven.put(mark, found)
        return found

    async def _asked(self, token: str, *, late: bool) -> dict[str, Any] | None:
        """What Keystone says of the token; None when it refuses it."""
        path = f"{_TOKENS}?nocatalog" + ("&allow_expired=1" if late else "")
        for attempt in (1, 2):
            own = await self._own_token(fresh=attempt == 2)
            headers = {"X-Auth-Token": own, "X-Subject-Token": token}
            status, _, body = await self._call("GET", path, headers=headers)
            if status == 200:
                return _token_of(body)
            if status == 404:
                return None
            if status != 401:
                raise KeystoneAway(url=self._url, reason=f"it answered {status}.")
        raise KeystoneRefusesUs(user=self._settings.username)

    async def _own_token(self, *, fresh: bool) -> str:
        """The token this service asks with; `fresh` after Keystone did not take the one we had."""
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
            status, headers, body = await self._call("POST", f"{_TOKENS}?nocatalog", json=wanted)
            if status in {401, 403, 404}:
                raise KeystoneRefusesUs(user=settings.username)
            token = headers.get("X-Subject-Token")
            if status != 201 or not token:
                raise KeystoneAway(url=self._url, reason=f"a login was answered with {status}.")
            self._own = token, _expiry(_token_of(body))
            return token

    async def _call(self, method: str, path: str, **more: Any) -> tuple[int, Mapping[str, str], Any]:
        if self._session is None:
            context = self._settings.tls()
            connector = aiohttp.TCPConnector(ssl=context) if context is not None else aiohttp.TCPConnector(ssl=True)
            timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        try:
            async with self._session.request(method, f"{self._url}{path}", allow_redirects=False, **more) as answer:
                body = await answer.json() if answer.content_type == "application/json" else None
                return answer.status, answer.headers, body
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise KeystoneAway(url=self._url, reason=f"{str(error) or 'no answer in time'}.") from None

    def _hash(self, text: str) -> str:
        return hashlib.blake2b(text.encode(), key=self._salt, digest_size=16).hexdigest()


def _token_of(body: Any) -> dict[str, Any]:
    found = body.get("token") if isinstance(body, dict) else None
    return found if isinstance(found, dict) else {}


def _expiry(token: Mapping[str, Any]) -> float:
    """Seconds since 1970; the past for what can not be read."""
    try:
        return datetime.datetime.fromisoformat(str(token.get("expires_at"))).timestamp()
    except ValueError:
        return 0.0


def principal(token: Mapping[str, Any]) -> Principal:
    """Who a token of Keystone stands for; its roles are those that Keystone names, no more."""
    user, project = _part(token, "user"), _part(token, "project")
    if not user.get("id"):
        raise TokenRefused
    audit = token.get("audit_ids") or [None]
    return Principal(
        user_id=str(user["id"]),
        user_name=str(user.get("name", "")),
        project_id=project.get("id"),
        project_name=project.get("name"),
        roles=frozenset(str(role.get("name")) for role in token.get("roles") or ()),
        user_domain_id=str(_part(user, "domain").get("id", "")),
        project_domain_id=_part(project, "domain").get("id"),
        domain_id=_part(token, "domain").get("id"),
        system=bool(_part(token, "system").get("all")),
        token_id=audit[0],
    )


def _part(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = of.get(name)
    return found if isinstance(found, Mapping) else {}
