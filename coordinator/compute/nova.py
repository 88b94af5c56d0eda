"""Nova by its API: external events of servers, and what it says of a server's volumes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import aiohttp

from agent.base.errors import BrickyardError, Temporary
from agent.base.log import get_logger
from coordinator.compute.base import Login, Told, Use
from coordinator.compute.errors import ComputeAway, ComputeRefused, ComputeTooOld
from coordinator.compute.settings import ComputeSettings

log = get_logger(__name__)
_TYPES = ("compute", "compute_legacy")
_EXTENDED, _REIMAGED, _ATTACHMENTS = "2.51", "2.93", "2.89"
_LATER = frozenset({408, 425, 429, 500, 502, 503, 504})
_PAUSE_S = 0.5
_LONGEST = 2000


class Nova:
    """See `coordinator.compute.base.Compute`. `pause_s`: before the second attempt; doubled for each one more."""

    def __init__(self, settings: ComputeSettings, login: Login, pause_s: float = _PAUSE_S) -> None:
        self._settings, self._login, self._pause_s = settings, login, pause_s

    @property
    def completion_deadline_s(self) -> float | None:
        return self._settings.completion_deadline_s if self._settings.completion_version is not None else None

    async def close(self) -> None:
        await self._login.close()

    async def volume_extended(self, servers: Sequence[str], volume_id: str) -> Told:
        return await self._tell("volume-extended", _EXTENDED, servers, volume_id)

    async def volume_reimaged(self, servers: Sequence[str], volume_id: str) -> Told:
        return await self._tell("volume-reimaged", _REIMAGED, servers, volume_id)

    async def extend_volume(self, server: str, volume_id: str) -> None:
        version = self._settings.completion_version
        assert version is not None, "no server is asked without it"
        told = await self._events("volume-extended", version, [server], volume_id)
        if server in told.refused:
            raise ComputeRefused(what="volume-extended", status_code=207, reason=told.refused[server])

    async def use(self, server: str, volume_id: str, attachment_id: str) -> Use:
        path = f"/servers/{server}/os-volume_attachments/{volume_id}"
        status, body = await self._again("GET", path, _ATTACHMENTS, "a look at a server's volumes")
        if status == 404:
            return "gone"
        if status != 200:
            raise ComputeRefused(what="a look at a server's volumes", status_code=status, reason=_reason(body))
        found = body.get("volumeAttachment") if isinstance(body, dict) else None
        if not isinstance(found, dict):
            raise ComputeAway(reason="its answer on a server's volumes can not be read")
        return "in-use" if found.get("attachment_id") in {None, attachment_id} else "elsewhere"

    async def _tell(self, name: str, version: str, servers: Sequence[str], volume_id: str) -> Told:
        """What can not be told is no failure of the volume's: why, comes back for each server."""
        if not servers:
            return Told()
        try:
            told = await self._events(name, version, servers, volume_id)
        except BrickyardError as error:
            told = Told(refused=dict.fromkeys(servers, str(error)))
        if told.refused:
            log.warning("servers were not told of a volume", notice=name, volume=volume_id, refused=dict(told.refused))
        return told

    async def _events(self, name: str, version: str, servers: Sequence[str], volume_id: str) -> Told:
        events = [{"name": name, "server_uuid": server, "tag": volume_id} for server in servers]
        path = "/os-server-external-events"
        status, body = await self._again("POST", path, version, name, json={"events": events})
        if status not in {200, 207}:
            raise ComputeRefused(what=name, status_code=status, reason=_reason(body))
        answers = body.get("events") if isinstance(body, dict) else None
        codes = {str(one.get("server_uuid")): one for one in answers or () if isinstance(one, dict)}
        refused = {server: _refusal(codes.get(server)) for server in servers if not _taken(codes.get(server))}
        return Told(tuple(server for server in servers if server not in refused), refused)

    async def _again(self, method: str, path: str, version: str, what: str, **more: Any) -> tuple[int, Any]:
        """The first answer that is none of "later"; raises ComputeAway, ComputeTooOld."""
        attempts, pause_s = self._settings.attempts, self._pause_s
        for attempt in range(1, attempts + 1):
            try:
                status, body = await self._call(method, path, version, **more)
            except Temporary as error:
                if attempt == attempts:
                    raise ComputeAway(reason=str(error).rstrip(".")) from error
            else:
                if status == 406:
                    raise ComputeTooOld(version=version, what=what)
                if status not in _LATER:
                    return status, body
                if attempt == attempts:
                    raise ComputeAway(reason=f"it answered {status}: {_reason(body)}")
            await asyncio.sleep(pause_s)
            pause_s *= 2
        raise AssertionError("the loop ends by itself")

    async def _call(self, method: str, path: str, version: str, **more: Any) -> tuple[int, Any]:
        """One call, with a fresh token if the one we had is not taken any more."""
        status, body = await self._once(method, path, version, fresh=False, **more)
        return (status, body) if status != 401 else await self._once(method, path, version, fresh=True, **more)

    async def _once(self, method: str, path: str, version: str, *, fresh: bool, **more: Any) -> tuple[int, Any]:
        settings = self._settings
        token = await self._login.token(fresh=fresh)
        base = settings.endpoint or await self._login.endpoint(_TYPES, settings.interface, settings.region)
        headers = {
            "X-Auth-Token": token,
            "OpenStack-API-Version": f"compute {version}",
            "X-OpenStack-Nova-API-Version": version,
        }
        timeout = aiohttp.ClientTimeout(total=settings.timeout_s)
        try:
            async with self._login.session().request(
                method, f"{base}{path}", headers=headers, timeout=timeout, allow_redirects=False, **more
            ) as answer:
                body = await answer.json() if answer.content_type == "application/json" else await answer.text()
                return answer.status, body
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ComputeAway(reason=str(error) or f"no answer within {settings.timeout_s:g} s") from None


def _taken(answer: dict[str, Any] | None) -> bool:
    return answer is not None and answer.get("code") in {None, 200, 202}


def _refusal(answer: dict[str, Any] | None) -> str:
    if answer is None:
        return "its answer does not name the server"
    known = {404: "there is no such server", 422: "the server is on no host now"}
    return known.get(answer.get("code", 0), f"code {answer.get('code')}")


def _reason(body: Any) -> str:
    """What a fault says; never longer than a line or two."""
    if isinstance(body, dict):
        for part in body.values():
            if isinstance(part, dict) and isinstance(part.get("message"), str):
                return str(part["message"])[:_LONGEST].rstrip(".")
    return str(body or "it did not say why")[:200].strip().rstrip(".")
