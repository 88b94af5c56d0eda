"""The seam between the API and whoever proves identities, and the strategy that asks for no proof."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from coordinator.identity.context import Principal, expanded
from coordinator.identity.errors import Unauthorized

Proof = tuple[Principal, frozenset[str]]
"""The caller, and the roles of the service that vouches for him (from X-Service-Token)."""


class Authenticator(Protocol):
    """Verifies the credentials of a request."""

    async def authenticate(self, headers: Mapping[str, str], address: str | None, project: str | None) -> Proof:
        """Who calls; raises Unauthorized (401) or TooManyFailures (429).

        `address` is the peer's, for rate limits. `project` stands in the path of the request; it is a wish that only
        strategies whose credentials name no project heed.
        """
        ...

    def challenge(self, base_url: str) -> str:
        """The value of WWW-Authenticate."""
        ...

    async def has_project(self, project_id: str) -> bool | None:
        """Whether there is this project; None where nobody can tell."""
        ...

    async def ancestors(self, project_id: str) -> tuple[str, ...] | None:
        """The projects above one, the nearest first; None where nobody can tell."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")


class NoAuthenticator:
    """Strategy `none`: everybody is whom he says (`X-Auth-Token: USER:PROJECT`), with the role admin.

    Clients that send no token (SDK with auth_type none) are user `admin` in the project `admin_project_id`.
    """

    def __init__(self, admin_project_id: str, admin_user_id: str) -> None:
        self._project = admin_project_id
        self._user = admin_user_id

    async def authenticate(self, headers: Mapping[str, str], address: str | None, project: str | None) -> Proof:
        user, _, named = headers.get("X-Auth-Token", "").partition(":")
        project = project or headers.get("X-Auth-Project-Id") or named or self._project
        user = headers.get("X-User-Id") or user or self._user
        if not _NAME.fullmatch(user) or not _NAME.fullmatch(project):
            raise Unauthorized
        roles = expanded(frozenset({"admin", "service"}))
        return Principal(user, user, project, project, roles), frozenset({"service"})

    async def close(self) -> None:
        """It holds nothing."""

    def challenge(self, base_url: str) -> str:
        return f'Keystone uri="{base_url}/identity"'

    async def has_project(self, project_id: str) -> bool | None:
        """Every project is there that somebody names."""
        return None

    async def ancestors(self, project_id: str) -> tuple[str, ...] | None:
        """No project lies below another."""
        return ()
