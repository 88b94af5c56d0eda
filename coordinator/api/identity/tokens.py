"""Logging in and out: `/identity/v3/auth`."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, ClassVar

from pydantic import Field

from agent.base.errors import NotFound
from coordinator.api.call import Call, Reply
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Body, Hidden
from coordinator.api.identity.catalog import catalog
from coordinator.api.route import Resource, delete, get, post
from coordinator.identity.errors import Forbidden, TokenRefused
from coordinator.identity.local import Issued, LocalIdentity
from coordinator.identity.scope import Named, Scope
from coordinator.state import identity as state

PREFIX = "/identity/v3"


class Lenient(Body):
    """Clients of Identity send keys that are not for us."""

    unknown_refused_from: ClassVar[int] = 10_000


class DomainRef(Lenient):
    id: str | None = Field(None, max_length=64)
    name: str | None = Field(None, max_length=64)

    def named(self) -> Named:
        return Named(id=self.id, name=self.name)


class ProjectRef(DomainRef):
    domain: DomainRef | None = None

    def named(self) -> Named:
        domain = self.domain or DomainRef()
        return Named(self.id, self.name, domain.id, domain.name)


class UserRef(ProjectRef):
    name: str | None = Field(None, max_length=255)
    password: Annotated[str, Hidden(), Field(max_length=4096)]


class PasswordMethod(Lenient):
    user: UserRef


class TokenMethod(Lenient):
    id: Annotated[str, Hidden(), Field(max_length=4096)]


class IdentityPart(Lenient):
    methods: list[str]
    password: PasswordMethod | None = None
    token: TokenMethod | None = None


class SystemScope(Lenient):
    all: bool


class ScopePart(Lenient):
    project: ProjectRef | None = None
    domain: DomainRef | None = None
    system: SystemScope | None = None

    def scope(self) -> Scope:
        if self.project is not None:
            return Scope("project", self.project.named())
        if self.domain is not None:
            return Scope("domain", self.domain.named())
        if self.system is not None:
            return Scope("system")
        return Scope("none")


class Auth(Lenient):
    identity: IdentityPart
    scope: ScopePart | str | None = None


def tokens() -> Resource:
    """Log in, show, check and take back tokens; what the bearer can reach."""
    return Resource(
        name="identity-tokens",
        about="Tokens.",
        prefix=PREFIX,
        routes=(
            post("/auth/tokens", _login, None, "Log in.", body=Auth, body_key="auth", status=201, public=True),
            get("/auth/tokens", _show, None, "Show or check the token in X-Subject-Token."),
            delete("/auth/tokens", _revoke, None, "Take back the token in X-Subject-Token.", status=204),
            get("/auth/catalog", _catalog, None, "Show the service catalog."),
            get("/auth/projects", _projects, None, "List the projects that the caller has a role in."),
            get("/auth/domains", _domains, None, "List the domains that the caller has a role in."),
            get("/auth/system", _system, None, "Whether the caller has a role on the system."),
        ),
    )


async def _login(call: Call) -> Reply:
    identity = call.services.get(LocalIdentity)
    auth = call.valid(Auth)
    if isinstance(auth.scope, ScopePart):
        scope = auth.scope.scope()
    else:
        scope = Scope("none") if auth.scope == "unscoped" else Scope()
    password, token = auth.identity.password, auth.identity.token
    if "password" in auth.identity.methods and password is not None:
        issued = await identity.login(password.user.named(), password.user.password, scope, call.address)
    elif "token" in auth.identity.methods and token is not None:
        issued = await identity.exchange(token.id, scope)
    else:
        raise BadRequest(reason="The methods served are 'password' and 'token', each with an object of its name.")
    quiet = "nocatalog" in call.query
    return Reply(document(call, issued, quiet), headers={"X-Subject-Token": issued.token, "Vary": "X-Auth-Token"})


def document(call: Call, issued: Issued, quiet: bool = False) -> dict[str, Any]:
    """The description of a token."""
    claims, found = issued.claims, issued.resolved
    domains = {"id": found.user.domain_id, "name": _domain_name(found.user.domain_id)}
    made: dict[str, Any] = {
        "methods": list(claims.methods),
        "user": {"id": found.user.id, "name": found.user.name, "domain": domains, "password_expires_at": None},
        "audit_ids": [claims.id],
        "expires_at": _time(claims.expires),
        "issued_at": _time(claims.issued),
    }
    if found.kind == "project" and found.target is not None:
        domain = {"id": found.target.domain_id, "name": _domain_name(found.target.domain_id)}
        made["project"] = {"id": found.target.id, "name": found.target.name, "domain": domain}
        made["is_domain"] = False
    elif found.kind == "domain" and found.target is not None:
        made["domain"] = {"id": found.target.id, "name": found.target.name}
    elif found.kind == "system":
        made["system"] = {"all": True}
    if found.kind != "none":
        made["roles"] = [{"id": role_id, "name": name} for role_id, name in found.roles]
        if not quiet:
            made["catalog"] = catalog(call, found.target_id if found.kind == "project" else None)
    return {"token": made}


def _domain_name(domain_id: str) -> str:
    return "Default" if domain_id == "default" else domain_id


def _time(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="microseconds") + "Z"


async def _subject(call: Call) -> Issued:
    """The token asked about: one's own, or any for an administrator or a service."""
    given = call.request.headers.get("X-Subject-Token", "")
    identity = call.services.get(LocalIdentity)
    try:
        issued = await identity.describe(given)
    except TokenRefused:
        raise NotFound(noun="Token", id="in X-Subject-Token") from None
    own = issued.claims.user_id == call.context.user_id
    if not own and not call.context.is_admin and "service" not in call.context.roles:
        raise Forbidden(rule="identity:validate_token")
    return issued


async def _show(call: Call) -> Reply:
    issued = await _subject(call)
    return Reply(document(call, issued, "nocatalog" in call.query), headers={"X-Subject-Token": issued.token})


async def _revoke(call: Call) -> None:
    issued = await _subject(call)
    await call.services.get(LocalIdentity).revoke(issued.token)


async def _catalog(call: Call) -> dict[str, Any]:
    links = {"self": f"{call.base_url}{PREFIX}/auth/catalog", "previous": None, "next": None}
    return {"catalog": catalog(call, call.context.principal.project_id), "links": links}


async def _projects(call: Call) -> dict[str, Any]:
    from coordinator.api.identity.views import listed, project_view

    found = await call.services.db.read(lambda conn: state.projects_of(conn, call.context.user_id))
    return listed(call, "projects", [project_view(call, row) for row in found])


async def _domains(call: Call) -> dict[str, Any]:
    from coordinator.api.identity.views import domain_view, listed

    rows = await call.services.db.read(
        lambda conn: [
            row for row in state.rows(conn, "domain") if state.role_rows(conn, call.context.user_id, "domain", row.id)
        ]
    )
    return listed(call, "domains", [domain_view(call, row) for row in rows])


async def _system(call: Call) -> dict[str, Any]:
    found = await call.services.db.read(lambda conn: state.role_rows(conn, call.context.user_id, "system", "all"))
    return {"system": [{"all": True}] if found else []}
