"""Barbican's secrets, their access lists and their consumers, as this service's own user."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Protocol

from coordinator.keys.errors import ManagerAway, ManagerRefuses
from coordinator.keys.settings import BarbicanSettings

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

    from coordinator.keys.store import Secret

_TYPES = ("key-manager",)
_SERVICE = "brickyard"
_REMEDY = "Give the user of [identity.keystone] the role `creator` in its project, and look at Barbican's log"
_VERSION = {"OpenStack-API-Version": "key-manager 1.1"}


class Cloud(Protocol):
    """A log-in at the Keystone that Barbican asks."""

    async def token(self, *, fresh: bool = False) -> str: ...
    async def endpoint(self, types: tuple[str, ...], interface: str, region: str | None) -> str: ...
    def session(self) -> ClientSession: ...
    async def close(self) -> None: ...


class Barbican:
    """Calls raise ManagerAway (try again), ManagerRefuses, and what the log-in raises. Nothing here is logged."""

    def __init__(self, settings: BarbicanSettings, cloud: Cloud) -> None:
        self._settings, self._cloud = settings, cloud

    async def close(self) -> None:
        await self._cloud.close()

    async def find(self, name: str) -> list[str]:
        """Ids of our secrets of that name, oldest first."""
        answer = await self._call("GET", "/secrets", params={"name": name, "sort": "created:asc", "limit": "100"})
        return [_id_of(one["secret_ref"]) for one in answer["secrets"]]

    async def store(self, name: str, secret: Secret) -> str:
        """A new secret with that value; returns its id."""
        body: dict[str, Any] = {
            "name": name,
            "secret_type": secret.type,
            "payload": base64.b64encode(secret.value).decode(),
            "payload_content_type": "application/octet-stream",
            "payload_content_encoding": "base64",
        }
        if secret.algorithm and secret.bit_length:
            body |= {"algorithm": secret.algorithm, "bit_length": secret.bit_length, "mode": "xts"}
        return _id_of((await self._call("POST", "/secrets", json=body))["secret_ref"])

    async def allow(self, secret_id: str, user_id: str) -> None:
        """Let a user read the secret, beside those who may already."""
        path = f"/secrets/{secret_id}/acl"
        users = set((await self._call("GET", path)).get("read", {}).get("users", ()))
        if user_id not in users:
            await self._call("PUT", path, json={"read": {"users": sorted({*users, user_id})}})

    async def use(self, secret_id: str, volume_id: str) -> None:
        """Say that the volume needs the secret; once more is fine."""
        body = {"service": _SERVICE, "resource_type": "volume", "resource_id": volume_id}
        await self._call("POST", f"/secrets/{secret_id}/consumers", json=body, headers=_VERSION)

    async def read(self, secret_id: str) -> bytes | None:
        """The value; None where there is no such secret."""
        headers = {"Accept": "application/octet-stream"}
        answer = await self._call("GET", f"/secrets/{secret_id}/payload", headers=headers, missing={}, raw=True)
        value: bytes | None = answer.get("raw")
        return value

    async def remove(self, name: str, kept: str | None = None) -> None:
        """Delete all our secrets of that name but `kept`, and what we said of their use. None: already so."""
        for secret_id in await self.find(name):
            if secret_id == kept:
                continue
            path = f"/secrets/{secret_id}/consumers"
            for one in (await self._call("GET", path, headers=_VERSION, missing={}))["consumers"]:
                if one["service"] == _SERVICE:
                    body = {key: one[key] for key in ("service", "resource_type", "resource_id")}
                    await self._call("DELETE", path, json=body, headers=_VERSION, missing={})
            await self._call("DELETE", f"/secrets/{secret_id}", missing={})

    async def _call(
        self, method: str, path: str, *, missing: dict[str, Any] | None = None, raw: bool = False, **more: Any
    ) -> dict[str, Any]:
        """The JSON of the answer (`raw`: its bytes, under that word), `missing` where there is no such thing.

        A token not taken is renewed once.
        """
        import aiohttp

        settings = self._settings
        base = settings.endpoint or await self._cloud.endpoint(_TYPES, settings.interface, settings.region)
        url = f"{base.removesuffix('/v1')}/v1{path}"
        headers = {"Accept": "application/json", **more.pop("headers", {})}
        timeout = aiohttp.ClientTimeout(total=settings.timeout_s)
        for fresh in (False, True):
            headers["X-Auth-Token"] = await self._cloud.token(fresh=fresh)
            request = self._cloud.session().request(
                method, url, headers=headers, allow_redirects=False, timeout=timeout, **more
            )
            try:
                async with request as answer:
                    status, body = answer.status, await _body(answer, raw=raw) if answer.status < 400 else {}
            except (TimeoutError, aiohttp.ClientError, ValueError) as error:
                raise ManagerAway(url=base, reason=f"{type(error).__name__}.") from None
            if status != 401:
                break
        if status == 404 and missing is not None:
            return {"consumers": [], **missing}
        if status >= 500 or status == 401:
            raise ManagerAway(url=base, reason=f"it answered {status}.")
        if status >= 400:
            raise ManagerRefuses(what=f"{method} {path}", status=status, remedy=_REMEDY)
        return body or {}


async def _body(answer: ClientResponse, *, raw: bool) -> Any:
    return {"raw": await answer.read()} if raw else await answer.json(content_type=None)


def _id_of(ref: str) -> str:
    return ref.rstrip("/").rpartition("/")[2]
