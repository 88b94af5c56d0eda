"""Secrets of a Barbican that images name, read with the caller's own token; certificates by this site, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from agent.base.ids import is_id
from coordinator.images.errors import CertificateAway

if TYPE_CHECKING:
    from aiohttp import ClientSession

MOST_BYTES = 1 << 16
_TYPES = ("key-manager",)
_KEYS = ("passphrase", "symmetric", "opaque")


class Cloud(Protocol):
    """A log-in at the Keystone that Barbican asks."""

    async def token(self, *, fresh: bool = False) -> str: ...
    async def endpoint(self, types: tuple[str, ...], interface: str, region: str | None) -> str: ...
    def session(self) -> ClientSession: ...
    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """Where it answers: an address, or what to look for in the catalog."""

    endpoint: str | None
    interface: str
    region: str | None
    timeout_s: float


class CertificateManager:
    """Lives on one event loop; end it with `close()`."""

    def __init__(self, place: Place, cloud: Cloud) -> None:
        self._place, self._cloud = place, cloud

    async def close(self) -> None:
        await self._cloud.close()

    async def certificate(self, certificate_id: str, token: str | None) -> bytes | None:
        """PEM or DER; None where that token opens no certificate of that id. Raises CertificateAway."""
        found = await self._opened(certificate_id, token, ("certificate",))
        return None if found is None else found[1]

    async def key(self, key_id: str, token: str) -> tuple[str, bytes] | None:
        """Type and value of what opens an image; None where that token opens none. Raises CertificateAway."""
        return await self._opened(key_id, token, _KEYS)

    async def _opened(self, secret_id: str, token: str | None, types: tuple[str, ...]) -> tuple[str, bytes] | None:
        """The value of a secret of any other type is not even asked for."""
        import aiohttp

        if not is_id(secret_id):
            return None
        base = self._place.endpoint or await self._cloud.endpoint(_TYPES, self._place.interface, self._place.region)
        url = f"{base.removesuffix('/v1')}/v1/secrets/{secret_id}"
        headers = {"X-Auth-Token": token if token is not None else await self._cloud.token()}
        try:
            about = await self._get(url, {**headers, "Accept": "application/json"})
            if about is None:
                return None
            kind, content = _described(about)
            if kind not in types or content is None:
                return None
            value = await self._get(f"{url}/payload", {**headers, "Accept": content})
            return None if value is None else (kind, value)
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise CertificateAway(url=base, reason=str(error) or "no answer in time") from None

    async def _get(self, url: str, headers: dict[str, str]) -> bytes | None:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=self._place.timeout_s)
        request = self._cloud.session().get(url, headers=headers, allow_redirects=False, timeout=timeout)
        async with request as answer:
            if answer.status >= 500:
                raise CertificateAway(url=url.partition("/v1/")[0], reason=f"it answered {answer.status}")
            if answer.status != 200:
                return None
            found = await answer.content.read(MOST_BYTES + 1)
            while len(found) <= MOST_BYTES and (more := await answer.content.read(MOST_BYTES)):
                found += more
            return found if len(found) <= MOST_BYTES else None


def _described(about: bytes) -> tuple[str, str | None]:
    """Type of the secret, and the content type that its value has."""
    import json

    found = json.loads(about)
    if not isinstance(found, dict):
        return "", None
    content = (found.get("content_types") or {}).get("default")
    return str(found.get("secret_type")), content.partition(";")[0] if isinstance(content, str) else None
