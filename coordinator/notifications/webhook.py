"""Events posted to an address, signed as the Standard Webhooks specification says.

A receiver proves a call by HMAC-SHA256 over `ID.TIMESTAMP.BODY` with the shared secret, refuses old timestamps, and
drops an id that it has seen.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from fnmatch import fnmatchcase

import aiohttp

from coordinator.notifications.errors import NotSent
from coordinator.notifications.event import Event
from coordinator.notifications.settings import WebhookSettings

_PREFIX = b"whsec_"


class Webhook:
    """See `coordinator.notifications.event.Sink`. Lives on one event loop."""

    def __init__(self, settings: WebhookSettings) -> None:
        self.name = settings.receiver
        self._settings, self._secret = settings, key_of(settings.secret())
        self._session: aiohttp.ClientSession | None = None

    def wants(self, event: Event) -> bool:
        return any(fnmatchcase(event.type, pattern) for pattern in self._settings.types)

    async def send(self, event: Event) -> None:
        body = json.dumps(
            {"type": event.type, "timestamp": f"{event.at.isoformat()}Z", "data": _data(event)}, separators=(",", ":")
        ).encode()
        headers = {"Content-Type": "application/json", **signed(self._secret, f"event-{event.position}", body)}
        try:
            async with self._opened().post(
                self._settings.url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NotSent(receiver=self.name, reason=str(error) or "no answer in time") from None
        if not 200 <= status < 300:
            raise NotSent(receiver=self.name, reason=f"it answered {status}")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            context: object = True
            if self._settings.ca_file is not None:
                import ssl

                context = ssl.create_default_context(cafile=str(self._settings.ca_file))
            timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), timeout=timeout)  # type: ignore[arg-type]
        return self._session


def key_of(secret: bytes | None) -> bytes | None:
    """The bytes to sign with: `whsec_` and base64, as the specification writes secrets, or any text."""
    if secret is None or not secret.startswith(_PREFIX):
        return secret
    return base64.b64decode(secret.removeprefix(_PREFIX))


def signed(key: bytes | None, message_id: str, body: bytes) -> dict[str, str]:
    """The headers of a call; without a key it is not signed."""
    stamp = str(int(time.time()))
    headers = {"webhook-id": message_id, "webhook-timestamp": stamp}
    if key is not None:
        digest = hmac.new(key, f"{message_id}.{stamp}.".encode() + body, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def _data(event: Event) -> dict[str, object]:
    return {
        "seq": event.position,
        "resource_type": event.resource_type,
        "resource_id": event.resource_id,
        "project_id": event.project_id,
        "request_id": event.request_id,
        **event.payload,
    }
