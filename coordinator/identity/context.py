"""Who makes a request. A `Principal` is what a credential proves and is shared between requests; a `RequestContext`
is one request of a principal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

IMPLIED = {"admin": ("member", "reader"), "member": ("reader",), "manager": ("member", "reader")}
"""A role carries those it implies."""


def expanded(roles: frozenset[str]) -> frozenset[str]:
    """`roles` and all they imply."""
    more = {implied for role in roles for implied in IMPLIED.get(role, ())}
    return roles | more


@dataclass(frozen=True, slots=True)
class Principal:
    """A user in a scope. `project_id` is None for an unscoped, domain or system scope; `roles` are expanded."""

    user_id: str
    user_name: str
    project_id: str | None
    project_name: str | None
    roles: frozenset[str]
    user_domain_id: str = "default"
    project_domain_id: str | None = None
    domain_id: str | None = None
    system: bool = False
    token_id: str | None = field(default=None, repr=False)
    """The audit id of the token it came from (not the token)."""
    is_admin_project: bool = True
    """Whether who is admin in the scope is so for the whole cloud; a Keystone may have one project for that."""

    def credentials(self) -> dict[str, Any]:
        """The form that policy rules look at."""
        return {
            "user_id": self.user_id,
            "project_id": self.project_id,
            "tenant_id": self.project_id,
            "domain_id": self.domain_id,
            "user_domain_id": self.user_domain_id,
            "project_domain_id": self.project_domain_id,
            "system_scope": "all" if self.system else None,
            "roles": sorted(self.roles),
            "is_admin": "admin" in self.roles,
            "is_admin_project": self.is_admin_project,
        }


ANONYMOUS = Principal("", "", None, None, frozenset())
"""Whoever calls a route that needs no authentication."""


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One request of a principal. `version` is the minor of the Block Storage microversion in force."""

    principal: Principal
    request_id: str
    version: int = 0
    is_admin: bool = False
    """Whether policy rule `context_is_admin` holds."""
    service_roles: frozenset[str] = frozenset()
    global_request_id: str | None = None

    @property
    def user_id(self) -> str:
        return self.principal.user_id

    @property
    def project_id(self) -> str:
        """The project in scope; empty where the scope has none."""
        return self.principal.project_id or ""

    @property
    def roles(self) -> frozenset[str]:
        return self.principal.roles

    @property
    def is_service(self) -> bool:
        """Whether a service vouches for the request (a valid service token with role `service`)."""
        return "service" in self.service_roles
