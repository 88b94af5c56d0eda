"""From a user and a wished scope to a principal, in one read of the database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from coordinator.identity.context import Principal, expanded
from coordinator.identity.errors import BadCredentials, TokenRefused
from coordinator.identity.tokens import Claims, Kind
from coordinator.state import identity as state

DEFAULT_DOMAIN = "default"


@dataclass(frozen=True, slots=True)
class Named:
    """A thing by id, or by name in a domain (by id or name; neither: the default domain)."""

    id: str | None = None
    name: str | None = None
    domain_id: str | None = None
    domain_name: str | None = None

    def find(self, conn: Connection, noun: str) -> Row[Any] | None:
        """The row of a user or project (`noun`), or of a domain."""
        if self.id is not None:
            return state.by_id(conn, noun, self.id)
        if self.name is None:
            return None
        if noun == "domain":
            return state.by_name(conn, noun, self.name)
        domain_id = self.domain_id
        if domain_id is None and self.domain_name is not None:
            domain = state.by_name(conn, "domain", self.domain_name)
            if domain is None:
                return None
            domain_id = domain.id
        return state.by_name(conn, noun, self.name, domain_id or DEFAULT_DOMAIN)


@dataclass(frozen=True, slots=True)
class Scope:
    """What a login asks for. `default` takes the user's default project where he has one."""

    kind: Kind | str = "default"
    target: Named = Named()


@dataclass(frozen=True, slots=True)
class Resolved:
    """A user in a scope, with the rows that the token's description needs."""

    principal: Principal
    kind: Kind
    target_id: str
    user: Row[Any]
    target: Row[Any] | None
    roles: tuple[tuple[str, str], ...]
    """(id, name) of each role, implied ones included."""


def resolve(conn: Connection, user: Row[Any], scope: Scope, token_id: str) -> Resolved:
    """`user` in `scope`; raises BadCredentials when he may not use it (or it does not exist: the same answer)."""
    if scope.kind == "default":
        if user.default_project_id:
            wished = Scope("project", Named(id=user.default_project_id))
            if state.role_rows(conn, user.id, "project", user.default_project_id):
                return resolve(conn, user, wished, token_id)
        scope = Scope("none")
    if scope.kind == "none":
        return Resolved(_principal(user, None, "none", frozenset(), token_id), "none", "", user, None, ())
    if scope.kind == "system":
        return _resolved(conn, user, "system", None, token_id)
    kind: Kind = "project" if scope.kind == "project" else "domain"
    target = scope.target.find(conn, kind)
    if target is None or not target.enabled:
        raise BadCredentials
    return _resolved(conn, user, kind, target, token_id)


def resolve_claims(conn: Connection, claims: Claims) -> Resolved:
    """The principal of a token, as things stand now; raises TokenRefused."""
    user = state.by_id(conn, "user", claims.user_id)
    if user is None or not usable(conn, user) or claims.issued <= user.tokens_valid_after:
        raise TokenRefused
    if state.token_revoked(conn, claims.id):
        raise TokenRefused
    try:
        return resolve(conn, user, Scope(claims.kind, Named(id=claims.target)), claims.id)
    except BadCredentials:
        raise TokenRefused from None


def usable(conn: Connection, user: Row[Any]) -> bool:
    """Whether the user and his domain are enabled."""
    domain = state.by_id(conn, "domain", user.domain_id)
    return bool(user.enabled and domain is not None and domain.enabled)


def _resolved(conn: Connection, user: Row[Any], kind: Kind, target: Row[Any] | None, token_id: str) -> Resolved:
    target_id = target.id if target is not None else "all"
    given = [(row.id, row.name) for row in state.role_rows(conn, user.id, kind, target_id)]
    if not given:
        raise BadCredentials
    names = expanded(frozenset(name for _, name in given))
    known = {row.name: row.id for row in state.rows(conn, "role")}
    roles = tuple((known[name], name) for name in sorted(names) if name in known)
    return Resolved(_principal(user, target, kind, names, token_id), kind, target_id, user, target, roles)


def _principal(user: Row[Any], target: Row[Any] | None, kind: Kind, roles: frozenset[str], token_id: str) -> Principal:
    project = target if kind == "project" else None
    return Principal(
        user_id=user.id,
        user_name=user.name,
        project_id=project.id if project is not None else None,
        project_name=project.name if project is not None else None,
        roles=roles,
        user_domain_id=user.domain_id,
        project_domain_id=project.domain_id if project is not None else None,
        domain_id=target.id if target is not None and kind == "domain" else None,
        system=kind == "system",
        token_id=token_id,
    )
