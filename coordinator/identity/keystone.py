"""Strategy `keystone`: tokens are proven by a Keystone, asked once in a while for each token."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from coordinator.identity.authenticator import Proof
from coordinator.identity.context import Principal
from coordinator.identity.errors import KeystoneAway, KeystoneRefusesUs, TokenRefused, Unauthorized
from coordinator.identity.memory import Memory, Together
from coordinator.identity.service_user import TOKENS, ServiceUser, expiry, token_of
from coordinator.identity.settings import KeystoneSettings

_REFUSED_S = 10.0
_LONGEST = 16384
_PROJECT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOBODY: frozenset[str] = frozenset()


class KeystoneAuthenticator:
    """Lives on one event loop; end it with `close()`.

    A proven token is remembered for `cache_s`: that long a revoked one may still be taken. A refused one is remembered
    for ten seconds. Without an answer from Keystone nobody is let in (503).
    """

    def __init__(self, settings: KeystoneSettings) -> None:
        self._settings = settings
        self._user = ServiceUser(settings)
        self._proven = Memory[tuple[float, Principal]](settings.cache_s)
        self._refused = Memory[bool](_REFUSED_S)
        self._projects = Memory[bool](settings.cache_s)
        self._asking = Together[tuple[float, Principal]]()
        self._salt = secrets.token_bytes(32)

    async def close(self) -> None:
        await self._user.close()

    def challenge(self, base_url: str) -> str:
        return f'Keystone uri="{self._settings.auth_url}"'

    async def has_project(self, project_id: str) -> bool | None:
        """None where our user may not look at projects; raises KeystoneAway, KeystoneRefusesUs."""
        if not _PROJECT.fullmatch(project_id):
            return False
        if self._projects.get(project_id):
            return True
        for attempt in (1, 2):
            headers = {"X-Auth-Token": await self._user.token(fresh=attempt == 2)}
            status, _, _ = await self._user.ask("GET", f"/projects/{project_id}", headers=headers)
            if status == 200:
                self._projects.put(project_id, True)
                return True
            if status == 404:
                return False
            if status != 401:
                return None
        raise KeystoneRefusesUs(user=self._settings.username)

    async def ancestors(self, project_id: str) -> tuple[str, ...] | None:
        """None for a project that is not there, or that our user may not look at; raises as `has_project`."""
        if not _PROJECT.fullmatch(project_id):
            return None
        for attempt in (1, 2):
            headers = {"X-Auth-Token": await self._user.token(fresh=attempt == 2)}
            status, _, body = await self._user.ask("GET", f"/projects/{project_id}?parents_as_ids", headers=headers)
            if status == 200:
                return _above(_part(body, "project") if isinstance(body, Mapping) else {})
            if status != 401:
                return None
        raise KeystoneRefusesUs(user=self._settings.username)

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
        return (await self._asking.ask(mark, lambda: self._proved(mark, token, late=late)))[1]

    async def _proved(self, mark: str, token: str, *, late: bool) -> tuple[float, Principal]:
        body = await self._asked(token, late=late)
        if body is None:
            self._refused.put(mark, True)
            raise TokenRefused
        found = expiry(body), principal(body)
        self._proven.put(mark, found)
        return found

    async def _asked(self, token: str, *, late: bool) -> dict[str, Any] | None:
        """What Keystone says of the token; None when it refuses it."""
        path = f"{TOKENS}?nocatalog" + ("&allow_expired=1" if late else "")
        for attempt in (1, 2):
            own = await self._user.token(fresh=attempt == 2)
            headers = {"X-Auth-Token": own, "X-Subject-Token": token}
            status, _, body = await self._user.ask("GET", path, headers=headers)
            if status == 200:
                return token_of(body)
            if status == 404:
                return None
            if status != 401:
                raise KeystoneAway(url=self._user.url, reason=f"it answered {status}.")
        raise KeystoneRefusesUs(user=self._settings.username)

    def _hash(self, text: str) -> str:
        return hashlib.blake2b(text.encode(), key=self._salt, digest_size=16).hexdigest()


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
        is_admin_project=bool(token.get("is_admin_project", True)),
    )


def _above(project: Mapping[str, Any]) -> tuple[str, ...]:
    """The projects above, the nearest first. The last one that Keystone names is the domain, which is no project."""
    found: list[str] = []
    above, domain = project.get("parents"), str(project.get("domain_id"))
    while isinstance(above, Mapping) and above:
        (one,) = list(above)[:1]
        if one == domain:
            break
        found.append(str(one))
        above = above[one]
    return tuple(found)


def _part(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = of.get(name)
    return found if isinstance(found, Mapping) else {}
