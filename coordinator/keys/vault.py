"""Secrets in a Vault's (or OpenBao's) KV engine, version 2, laid out as castellan's Vault plugin reads them.

A secret lies under the id that it has here, so that a volume's key keeps its id, and the name alone tells where.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coordinator.keys.errors import ManagerAway, ManagerRefuses
from coordinator.keys.settings import VaultSettings

if TYPE_CHECKING:
    import aiohttp

    from coordinator.keys.store import Secret

_PREFIX = "brickyard-"
_GONE_VERSION = ("data", "metadata", "version")
_RETRIED = frozenset({412, 429})
"""A node that has not caught up yet, and a quota of requests: another time it is taken."""


@dataclass(frozen=True, slots=True)
class _Token:
    """`renew_at` and `ends` on the monotonic clock; a token without an end is renewed never."""

    value: str = field(repr=False)
    renewable: bool
    renew_at: float
    ends: float


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: dict[str, Any]


class Vault:
    """Calls raise ManagerAway (try again), ManagerRefuses, SecretUnreadable. Nothing here is logged."""

    def __init__(self, settings: VaultSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._own: _Token | None = None
        self._login = asyncio.Lock()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def find(self, name: str) -> list[str]:
        """The id that the name says, where something lies under it."""
        there = await self._call("GET", self._path("data", name), also={404})
        return [] if there.status == 404 else [_id_of(name)]

    async def store(self, name: str, secret: Secret) -> str:
        """A new secret with that value; returns its id. Another coordinator may do the same at this moment."""
        path = self._path("data", name)
        there = await self._call("GET", path, also={404})
        if there.status == 404:
            # One that somebody deleted still has a version, which the next one must name.
            version = _dug(there.body, *_GONE_VERSION) or 0
            body = {"options": {"cas": version}, "data": _told(name, secret)}
            done = await self._call("POST", path, json=body, also={400})
            if done.status == 400 and not await self.find(name):
                raise self._refuses(f"POST {path}", done.status)
        return _id_of(name)

    async def allow(self, secret_id: str, user_id: str) -> None:
        """Who may read is what Vault's own policies say; it knows none of the users here."""

    async def use(self, secret_id: str, volume_id: str) -> None:
        """Note beside the secret what needs it; once more is fine."""
        body = {"custom_metadata": {"service": "brickyard", "resource_type": "volume", "resource_id": volume_id}}
        await self._call("POST", self._path("metadata", _PREFIX + secret_id), json=body)

    async def read(self, secret_id: str) -> bytes | None:
        """The value; None where there is no such secret, or it is not in castellan's words."""
        there = await self._call("GET", self._path("data", _PREFIX + secret_id), also={404})
        value = _dug(there.body, "data", "data", "value")
        try:
            return bytes.fromhex(value) if isinstance(value, str) else None
        except ValueError:
            return None

    async def remove(self, name: str, kept: str | None = None) -> None:
        """Destroy all versions of the secret, unless it is `kept`, and what is noted of it. None: already so."""
        if _id_of(name) == kept:
            return
        await self._call("DELETE", self._path("metadata", name), also={404})

    def _path(self, part: str, name: str) -> str:
        settings = self._settings
        return "/".join(one for one in (settings.mount, part, settings.path, _id_of(name)) if one)

    async def _call(self, method: str, path: str, *, also: Collection[int] = (), **more: Any) -> _Answer:
        """The answer, also one of the statuses `also`; a token that is not taken is made anew once."""
        had = await self._token(None)
        answer = await self._ask(method, path, had.value, **more)
        if answer.status == 403:
            answer = await self._ask(method, path, (await self._token(had)).value, **more)
        if answer.status >= 400 and answer.status not in also:
            raise self._refuses(f"{method} {path}", answer.status)
        return answer

    async def _token(self, refused: _Token | None) -> _Token:
        """A token that is good for a while; another one than `refused`. Renewed at two thirds of its life."""
        async with self._login:
            own, now = self._own, time.monotonic()
            if own is not None and own is not refused:
                if now < own.renew_at:
                    return own
                if own.renewable and now < own.ends:
                    renewed = await self._ask("POST", "auth/token/renew-self", own.value, json={})
                    if renewed.status == 200:
                        self._own = _token_of(renewed.body, now)
                        return self._own
            settings = self._settings
            path = f"auth/{settings.approle_mount}/login"
            login = {"role_id": settings.role_id, "secret_id": settings.secret_id()}
            answer = await self._ask("POST", path, None, json=login)
            if answer.status >= 400:
                raise self._refuses(f"the log-in (POST {path})", answer.status)
            self._own = _token_of(answer.body, now)
            return self._own

    async def _ask(self, method: str, path: str, token: str | None, **more: Any) -> _Answer:
        import aiohttp

        settings = self._settings
        headers = {"X-Vault-Request": "true"}
        if settings.namespace:
            headers["X-Vault-Namespace"] = settings.namespace
        if token is not None:
            headers["X-Vault-Token"] = token
        url = f"{settings.address}/v1/{path}"
        try:
            async with self._opened().request(method, url, headers=headers, allow_redirects=False, **more) as answer:
                # A standby that does not forward sends on to the active node, which has an address of its own.
                status, body = answer.status, await answer.json(content_type=None) if answer.status != 204 else {}
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise ManagerAway(url=settings.address, reason=f"{type(error).__name__}.") from None
        if status >= 500 or status in _RETRIED or 300 <= status < 400:
            sealed = status == 503 and "sealed" in str(_dug(body, "errors"))
            raise ManagerAway(url=settings.address, reason="it is sealed." if sealed else f"it answered {status}.")
        return _Answer(status, body if isinstance(body, dict) else {})

    def _opened(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._settings.tls() or True)
            timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        return self._session

    def _refuses(self, what: str, status: int) -> ManagerRefuses:
        settings = self._settings
        below = "/".join(one for one in (settings.path, "*") if one)
        return ManagerRefuses(
            what=what, status=status,
            remedy=f"The policy of the AppRole must allow create, read, update on {settings.mount}/data/{below}, and "
            f"create, update and delete on {settings.mount}/metadata/{below}, of a KV engine of version 2; look at "
            "Vault's audit log, and whether role id and secret id are still good",
        )  # fmt: skip


def _told(name: str, secret: Secret) -> dict[str, Any]:
    """The words of castellan: every value is hexadecimal."""
    return {
        "type": secret.type,
        "value": secret.value.hex(),
        "algorithm": secret.algorithm,
        "bit_length": secret.bit_length,
        "name": name,
        "created": int(time.time()),
    }


def _token_of(body: dict[str, Any], now: float) -> _Token:
    auth = body.get("auth") or {}
    lasts = float(auth.get("lease_duration") or 0) or float("inf")
    return _Token(str(auth.get("client_token", "")), bool(auth.get("renewable")), now + lasts * 2 / 3, now + lasts)


def _id_of(name: str) -> str:
    return name.removeprefix(_PREFIX)


def _dug(body: Any, *names: str) -> Any:
    for name in names:
        body = body.get(name) if isinstance(body, dict) else None
    return body
