"""Roles, and who has which where."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row

from coordinator.api.call import Call
from coordinator.api.identity.tokens import PREFIX
from coordinator.api.identity.views import filters, listed, role_view, wanted, write
from coordinator.api.route import Resource, Route, delete, get, put
from coordinator.identity.errors import IdentityNotFound
from coordinator.state import identity as state

_TARGETS = {
    "project": "/projects/{target_id}/users/{user_id}/roles",
    "domain": "/domains/{target_id}/users/{user_id}/roles",
    "system": "/system/users/{user_id}/roles",
}


def roles() -> Resource:
    """Roles and assignments on projects, domains and the system."""
    found: list[Route] = [
        get("/roles", _list, None, "List roles.", query=("name",)),
        get("/roles/{role_id}", _show, None, "Show a role.", answer_key="role"),
        get("/role_assignments", _assignments, "identity:list_role_assignments", "List who has which role where.",
            query=("user.id", "role.id", "scope.project.id", "include_names")),
    ]  # fmt: skip
    for kind, path in _TARGETS.items():
        one = f"{path}/{{role_id}}"
        found += [
            get(path, _given(kind), "identity:list_role_assignments", f"List a user's roles on the {kind}."),
            get(one, _check(kind), "identity:list_role_assignments", "Check a role.", status=204),
            put(one, _grant(kind), "identity:create_grant", f"Give a role on the {kind}.", status=204),
            delete(one, _revoke(kind), "identity:revoke_grant", f"Take back a role on the {kind}.", status=204),
        ]
    return Resource("identity-roles", "Roles and assignments.", tuple(found), prefix=PREFIX)


async def _list(call: Call) -> dict[str, Any]:
    equal = filters(call, "name")
    found = await call.services.db.read(lambda conn: state.rows(conn, "role", **equal))
    return listed(call, "roles", [role_view(call, row) for row in found])


async def _show(call: Call) -> dict[str, Any]:
    row = await call.services.db.read(lambda conn: wanted(conn, "role", call.params["role_id"]))
    return role_view(call, row)


def _target(conn: Connection, call: Call, kind: str) -> str:
    """The id of what the role is on, after a look that it and the user exist."""
    wanted(conn, "user", call.params["user_id"])
    if kind == "system":
        return "all"
    return str(wanted(conn, kind, call.params["target_id"]).id)


def _given(kind: str) -> Any:
    async def handler(call: Call) -> dict[str, Any]:
        def read(conn: Connection) -> list[Row[Any]]:
            held = state.role_rows(conn, call.params["user_id"], kind, _target(conn, call, kind))
            return [wanted(conn, "role", row.id) for row in held]

        found = await call.services.db.read(read)
        return listed(call, "roles", [role_view(call, row) for row in found])

    return handler


def _check(kind: str) -> Any:
    async def handler(call: Call) -> None:
        def read(conn: Connection) -> bool:
            target = _target(conn, call, kind)
            return state.granted(conn, call.params["user_id"], kind, target, call.params["role_id"])

        if not await call.services.db.read(read):
            raise IdentityNotFound(noun="role assignment", id=call.params["role_id"])

    return handler


def _grant(kind: str) -> Any:
    async def handler(call: Call) -> None:
        def grant(conn: Connection) -> None:
            role = wanted(conn, "role", call.params["role_id"])
            state.grant(conn, call.params["user_id"], kind, _target(conn, call, kind), role.id)

        await write(call, grant)

    return handler


def _revoke(kind: str) -> Any:
    async def handler(call: Call) -> None:
        def revoke(conn: Connection) -> None:
            target = _target(conn, call, kind)
            if not state.revoke_grant(conn, call.params["user_id"], kind, target, call.params["role_id"]):
                raise IdentityNotFound(noun="role assignment", id=call.params["role_id"])

        await write(call, revoke)

    return handler


async def _assignments(call: Call) -> dict[str, Any]:
    equal = {
        column: call.query[name]
        for name, column in (("user.id", "user_id"), ("role.id", "role_id"), ("scope.project.id", "target_id"))
        if name in call.query
    }

    def read(conn: Connection) -> tuple[list[Row[Any]], dict[str, Row[Any]]]:
        projects = {row.id: row for row in state.rows(conn, "project")}
        return list(state.assignments(conn, **equal)), projects

    found, projects = await call.services.db.read(read)
    names = call.query.get("include_names", "false").lower() not in {"0", "false"}
    return listed(call, "role_assignments", [_assignment(call, row, projects, names) for row in found])


def _assignment(call: Call, row: Row[Any], projects: dict[str, Row[Any]], names: bool) -> dict[str, Any]:
    scope: dict[str, Any] = {"id": row.target_id}
    user, role = {"id": row.user_id}, {"id": row.role_id}
    if names:
        domain = {"id": "default", "name": "Default"}
        user |= {"name": row.user_name, "domain": domain}
        role |= {"name": row.role_name}
        if row.target_id in projects:
            scope |= {"name": projects[row.target_id].name, "domain": domain}
    place = {"system": {"all": True}} if row.target_kind == "system" else {row.target_kind: scope}
    link = f"{call.base_url}{PREFIX}/role_assignments"
    return {"scope": place, "user": user, "role": role, "links": {"assignment": link}}
