"""Rows of the built-in identity service. Errors that people see are raised by `coordinator.identity`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.identity import (
    identity_assignments,
    identity_domains,
    identity_projects,
    identity_revoked,
    identity_roles,
    identity_users,
)

TABLES: Mapping[str, Table] = {
    "domain": identity_domains,
    "project": identity_projects,
    "user": identity_users,
    "role": identity_roles,
}
"""By noun."""


def by_id(conn: Connection, noun: str, key: str) -> Row[Any] | None:
    table = TABLES[noun]
    return conn.execute(select(table).where(table.c.id == key)).one_or_none()


def by_name(conn: Connection, noun: str, name: str, domain_id: str | None = None) -> Row[Any] | None:
    table = TABLES[noun]
    query = select(table).where(table.c.name == name)
    if domain_id is not None:
        query = query.where(table.c.domain_id == domain_id)
    return conn.execute(query.limit(1)).one_or_none()


def rows(conn: Connection, noun: str, **equal: Any) -> Sequence[Row[Any]]:
    """All rows whose columns have the given values, by name."""
    table = TABLES[noun]
    query = select(table).order_by(table.c.name, table.c.id)
    for column, value in equal.items():
        query = query.where(table.c[column] == value)
    return conn.execute(query).all()


def add(conn: Connection, noun: str, **values: Any) -> str | None:
    """Insert a row and return its id (made up unless given); None when the name is taken."""
    key = str(values.pop("id", None) or uuid.uuid4().hex)
    try:
        with conn.begin_nested():
            conn.execute(insert(TABLES[noun]).values(id=key, created_at=utcnow(), **values))
    except IntegrityError:
        return None
    return key


def change(conn: Connection, noun: str, key: str, **values: Any) -> bool | None:
    """Set columns; False when there is no such row, None when the new name is taken."""
    table = TABLES[noun]
    try:
        with conn.begin_nested():
            changed = conn.execute(update(table).where(table.c.id == key).values(updated_at=utcnow(), **values))
    except IntegrityError:
        return None
    return changed.rowcount == 1


def remove(conn: Connection, noun: str, key: str) -> bool:
    """Delete a row and the assignments that name it."""
    held = identity_assignments
    if noun == "role":
        conn.execute(delete(held).where(held.c.role_id == key))
    elif noun == "user":
        conn.execute(delete(held).where(held.c.user_id == key))
    else:
        conn.execute(delete(held).where(held.c.target_kind == noun, held.c.target_id == key))
    table = TABLES[noun]
    return conn.execute(delete(table).where(table.c.id == key)).rowcount == 1


def role_rows(conn: Connection, user_id: str, kind: str, target_id: str) -> Sequence[Row[str, str]]:
    """Roles (id, name) that a user was given on a target."""
    held = identity_assignments
    query = (
        select(identity_roles.c.id, identity_roles.c.name)
        .join(held, held.c.role_id == identity_roles.c.id)
        .where(held.c.user_id == user_id, held.c.target_kind == kind, held.c.target_id == target_id)
        .order_by(identity_roles.c.name)
    )
    return conn.execute(query).all()


def projects_of(conn: Connection, user_id: str) -> Sequence[Row[Any]]:
    """Enabled projects that a user has any role in."""
    held = identity_assignments
    inside = select(held.c.target_id).where(held.c.user_id == user_id, held.c.target_kind == "project")
    query = select(identity_projects).where(identity_projects.c.id.in_(inside), identity_projects.c.enabled)
    return conn.execute(query.order_by(identity_projects.c.name)).all()


def grant(conn: Connection, user_id: str, kind: str, target_id: str, role_id: str) -> None:
    """Give a role; giving it again changes nothing."""
    if not granted(conn, user_id, kind, target_id, role_id):
        values = {"user_id": user_id, "target_kind": kind, "target_id": target_id, "role_id": role_id}
        conn.execute(insert(identity_assignments).values(**values))


def granted(conn: Connection, user_id: str, kind: str, target_id: str, role_id: str) -> bool:
    held = identity_assignments
    query = select(func.count()).where(
        held.c.user_id == user_id,
        held.c.target_kind == kind,
        held.c.target_id == target_id,
        held.c.role_id == role_id,
    )
    return bool(conn.execute(query).scalar())


def revoke_grant(conn: Connection, user_id: str, kind: str, target_id: str, role_id: str) -> bool:
    held = identity_assignments
    found = delete(held).where(
        held.c.user_id == user_id,
        held.c.target_kind == kind,
        held.c.target_id == target_id,
        held.c.role_id == role_id,
    )
    return conn.execute(found).rowcount == 1


def assignments(conn: Connection, **equal: Any) -> Sequence[Row[Any]]:
    """Assignments with the names of user and role; filtered by columns of the assignment."""
    held = identity_assignments
    query = (
        select(held, identity_users.c.name.label("user_name"), identity_roles.c.name.label("role_name"))
        .join(identity_users, identity_users.c.id == held.c.user_id)
        .join(identity_roles, identity_roles.c.id == held.c.role_id)
        .order_by(held.c.user_id, held.c.target_kind, held.c.target_id, held.c.role_id)
    )
    for column, value in equal.items():
        query = query.where(held.c[column] == value)
    return conn.execute(query).all()


def revoke_token(conn: Connection, token_id: str, expires: float, now: float) -> None:
    """Refuse a token from now on; forgets revocations of tokens that have run out."""
    table = identity_revoked
    conn.execute(delete(table).where(table.c.expires < now))
    if not token_revoked(conn, token_id):
        conn.execute(insert(table).values(token_id=token_id, expires=expires))


def token_revoked(conn: Connection, token_id: str) -> bool:
    query = select(func.count()).where(identity_revoked.c.token_id == token_id)
    return bool(conn.execute(query).scalar())
