"""Authenticators over the built-in identity service: tokens, and HTTP basic."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from coordinator.identity.authenticator import Authenticator, NoAuthenticator, Proof
from coordinator.identity.bootstrap import ADMIN_PROJECT_ID, ADMIN_USER_ID
from coordinator.identity.context import Principal
from coordinator.identity.errors import BadCredentials, Unauthorized
from coordinator.identity.local import LocalIdentity
from coordinator.identity.scope import Named, Scope
from coordinator.state import identity as state

_NOBODY: frozenset[str] = frozenset()


class TokenAuthenticator:
    """Strategy `local`: `X-Auth-Token`, with `X-Service-Token` beside it; HTTP basic for who sends no token."""

    def __init__(self, identity: LocalIdentity) -> None:
        self._identity = identity
        self._basic = BasicAuthenticator(identity)

    async def authenticate(self, headers: Mapping[str, str], address: str | None, project: str | None) -> Proof:
        token = headers.get("X-Auth-Token")
        if token is None:
            principal, _ = await self._basic.authenticate(headers, address, project)
        else:
            principal = (await self._identity.verify(token))[1]
        return principal, await self._service_roles(headers)

    async def _service_roles(self, headers: Mapping[str, str]) -> frozenset[str]:
        token = headers.get("X-Service-Token")
        return (await self._identity.verify(token))[1].roles if token is not None else _NOBODY

    def challenge(self, base_url: str) -> str:
        return f'Keystone uri="{base_url}/identity"'

    async def has_project(self, project_id: str) -> bool:
        return await self._basic.has_project(project_id)

    async def ancestors(self, project_id: str) -> tuple[str, ...] | None:
        return await self._basic.ancestors(project_id)

    async def close(self) -> None:
        """The identity service is closed by who made it."""


class BasicAuthenticator:
    """Strategy `basic`: user and password on each request (proven passwords are remembered shortly).

    The project is the one of the path, else of `X-Auth-Project-Id` (id or name), else the user's default project, else
    his only one.
    """

    def __init__(self, identity: LocalIdentity) -> None:
        self._identity = identity

    async def authenticate(self, headers: Mapping[str, str], address: str | None, project: str | None) -> Proof:
        name, password = _credentials(headers.get("Authorization", ""))
        user = await self._identity.proven(Named(name=name), password, address)
        return await self._scoped(user, project or headers.get("X-Auth-Project-Id")), _NOBODY

    async def _scoped(self, user: Row[Any], wished: str | None) -> Principal:
        if wished is not None:
            for named in (Named(id=wished), Named(name=wished)):
                try:
                    return await self._identity.in_scope(user, Scope("project", named))
                except BadCredentials:
                    continue
            raise BadCredentials
        principal = await self._identity.in_scope(user, Scope())
        if principal.project_id is not None:
            return principal
        projects = await self._identity.db.read(lambda conn: state.projects_of(conn, user.id))
        if len(projects) != 1:
            return principal
        return await self._identity.in_scope(user, Scope("project", Named(id=projects[0].id)))

    def challenge(self, base_url: str) -> str:
        return 'Basic realm="brickyard", charset="UTF-8"'

    async def has_project(self, project_id: str) -> bool:
        """The built-in identity service knows all of its projects."""
        return await self._identity.db.read(lambda conn: state.by_id(conn, "project", project_id)) is not None

    async def ancestors(self, project_id: str) -> tuple[str, ...] | None:
        """Its projects lie side by side in their domains."""
        return ()

    async def close(self) -> None:
        """The identity service is closed by who made it."""


def authenticator(identity: LocalIdentity) -> Authenticator:
    """The one that the settings of `identity` name."""
    match identity.settings.strategy:
        case "none":
            return NoAuthenticator(ADMIN_PROJECT_ID, ADMIN_USER_ID)
        case "basic":
            return BasicAuthenticator(identity)
        case "keystone":
            from coordinator.identity.keystone import KeystoneAuthenticator

            assert identity.settings.keystone is not None, "the settings see to it"
            return KeystoneAuthenticator(identity.settings.keystone)
    return TokenAuthenticator(identity)


def _credentials(header: str) -> tuple[str, str]:
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic":
        raise Unauthorized
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise Unauthorized from None
    if not colon or not name:
        raise Unauthorized
    return name, password
