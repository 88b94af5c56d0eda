"""How rows of the identity service look, and what all its handlers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Row

from coordinator.api.call import Call
from coordinator.api.identity.tokens import PREFIX
from coordinator.identity.errors import IdentityNotFound, NameTaken
from coordinator.identity.local import LocalIdentity
from coordinator.state import identity as state

T = TypeVar("T")


def listed(call: Call, key: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    """A list with the links that clients expect; it is always whole."""
    return {key: items, "links": {"self": f"{call.base_url}{call.request.path}", "previous": None, "next": None}}


def _links(call: Call, kind: str, key: str) -> dict[str, str]:
    return {"self": f"{call.base_url}{PREFIX}/{kind}/{key}"}


def user_view(call: Call, row: Row[Any]) -> dict[str, Any]:
    made = {
        "id": row.id,
        "name": row.name,
        "domain_id": row.domain_id,
        "enabled": row.enabled,
        "description": row.description,
        "password_expires_at": None,
        "options": {},
        "links": _links(call, "users", row.id),
    }
    if row.email:
        made["email"] = row.email
    if row.default_project_id:
        made["default_project_id"] = row.default_project_id
    return made


def project_view(call: Call, row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "domain_id": row.domain_id,
        "parent_id": row.domain_id,
        "is_domain": False,
        "enabled": row.enabled,
        "description": row.description,
        "tags": [],
        "options": {},
        "links": _links(call, "projects", row.id),
    }


def domain_view(call: Call, row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "enabled": row.enabled,
        "description": row.description,
        "tags": [],
        "options": {},
        "links": _links(call, "domains", row.id),
    }


def role_view(call: Call, row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "domain_id": None,
        "description": row.description,
        "options": {},
        "links": _links(call, "roles", row.id),
    }


def wanted(conn: Connection, noun: str, key: str) -> Row[Any]:
    """The row with this id; raises IdentityNotFound (404)."""
    row = state.by_id(conn, noun, key)
    if row is None:
        raise IdentityNotFound(noun=noun, id=key[:64])
    return row


def created(conn: Connection, noun: str, **values: Any) -> Row[Any]:
    """A new row; raises NameTaken (409)."""
    key = state.add(conn, noun, **values)
    if key is None:
        raise NameTaken(noun=noun, name=values["name"])
    return wanted(conn, noun, key)


def changed(conn: Connection, noun: str, key: str, **values: Any) -> Row[Any]:
    """The row after the change; raises IdentityNotFound (404), NameTaken (409)."""
    if values and state.change(conn, noun, key, **values) is None:
        raise NameTaken(noun=noun, name=values.get("name", ""))
    return wanted(conn, noun, key)


async def write(call: Call, fn: Callable[[Connection], T]) -> T:
    """Change something, then forget what was remembered of tokens."""
    result = await call.services.db.write(fn)
    call.services.get(LocalIdentity).forget()
    return result


def filters(call: Call, *names: str) -> dict[str, Any]:
    """The query parameters among `names`, `enabled` as a truth."""
    given: dict[str, Any] = {name: call.query[name] for name in names if name in call.query}
    if "enabled" in given:
        given["enabled"] = given["enabled"].lower() not in {"0", "false", "no"}
    return given
