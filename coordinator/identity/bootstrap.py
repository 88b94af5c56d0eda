"""What an identity service needs before anybody can log in; and its content as a file."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import Connection

from agent.base.errors import Invalid
from coordinator.identity import passwords
from coordinator.identity.scope import DEFAULT_DOMAIN
from coordinator.state import identity as state

ADMIN_PROJECT_ID = "ad0000000000000000000000000000ad"
ADMIN_USER_ID = "ad1000000000000000000000000000ad"
SERVICE_PROJECT_ID = "5e0000000000000000000000000000ce"
SERVICE_USER_ID = "5e1000000000000000000000000000ce"
ROLES = ("admin", "member", "reader", "service")
_FORMAT = 1


class ImportRefused(Invalid):
    code = "identity.import-refused"
    sentence = "The identity file can not be imported: {reason}."


def bootstrap(conn: Connection, admin_password: str, rounds: int = 10) -> None:
    """Make the domain Default, the roles, project and user `admin`, project and user `service`.

    Whatever exists stays as it is, the admin's password too. The service user gets no password.
    """
    if state.by_id(conn, "domain", DEFAULT_DOMAIN) is None:
        state.add(conn, "domain", id=DEFAULT_DOMAIN, name="Default", description="The default domain", enabled=True)
    for name in ROLES:
        if state.by_name(conn, "role", name) is None:
            state.add(conn, "role", name=name)
    for project_id, name in ((ADMIN_PROJECT_ID, "admin"), (SERVICE_PROJECT_ID, "service")):
        if state.by_id(conn, "project", project_id) is None:
            state.add(conn, "project", id=project_id, domain_id=DEFAULT_DOMAIN, name=name, enabled=True)
    if state.by_id(conn, "user", ADMIN_USER_ID) is None:
        _user(conn, ADMIN_USER_ID, "admin", ADMIN_PROJECT_ID, passwords.hashed(admin_password, rounds))
        _grant(conn, ADMIN_USER_ID, "project", ADMIN_PROJECT_ID, "admin")
        _grant(conn, ADMIN_USER_ID, "system", "all", "admin")
    if state.by_id(conn, "user", SERVICE_USER_ID) is None:
        _user(conn, SERVICE_USER_ID, "service", SERVICE_PROJECT_ID, None)
        _grant(conn, SERVICE_USER_ID, "project", SERVICE_PROJECT_ID, "service")


def exported(conn: Connection) -> dict[str, Any]:
    """Everything, password hashes too, as a JSON-ready dict: keep the file secret."""
    made: dict[str, Any] = {"brickyard_identity": _FORMAT}
    for noun in state.TABLES:
        made[f"{noun}s"] = [_plain(row._mapping) for row in state.rows(conn, noun)]
    kept = ("user_id", "target_kind", "target_id", "role_id")
    made["assignments"] = [{key: row._mapping[key] for key in kept} for row in state.assignments(conn)]
    return made


def imported(conn: Connection, content: Any) -> dict[str, int]:
    """Add what `exported` gave and is not there yet (by id); returns how many rows of each noun were added."""
    if not isinstance(content, dict) or content.get("brickyard_identity") != _FORMAT:
        raise ImportRefused(reason="it was not made by 'brickyard identity export' of this release")
    counts: dict[str, int] = {}
    # Roles are the same where their names are; each site has ids of its own for them.
    here: dict[str, str] = {}
    for noun, table in state.TABLES.items():
        counts[noun] = 0
        for entry in _entries(content, f"{noun}s"):
            allowed = set(table.c.keys()) - {"created_at", "updated_at", "tokens_valid_after"}
            values = {key: value for key, value in entry.items() if key in allowed}
            if state.by_id(conn, noun, str(values.get("id"))) is not None:
                continue
            _checked(noun, values)
            same = state.by_name(conn, "role", values["name"]) if noun == "role" else None
            if same is not None:
                here[values["id"]] = same.id
                continue
            if state.add(conn, noun, **values) is None:
                raise ImportRefused(reason=f"{noun} {values.get('name')!r} exists with another id")
            counts[noun] += 1
    for entry in _entries(content, "assignments"):
        user, role = str(entry.get("user_id")), str(entry.get("role_id"))
        role = here.get(role, role)
        if state.by_id(conn, "user", user) is None or state.by_id(conn, "role", role) is None:
            raise ImportRefused(reason=f"an assignment names user {user} or role {role}, which is not there")
        state.grant(conn, user, str(entry.get("target_kind")), str(entry.get("target_id")), role)
    return counts


def _entries(content: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = content.get(key, [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise ImportRefused(reason=f"{key} is not a list of objects")
    return found


def _checked(noun: str, values: dict[str, Any]) -> None:
    for key in ("id", "name"):
        if not isinstance(values.get(key), str) or not 1 <= len(values[key]) <= 64:
            raise ImportRefused(reason=f"a {noun} has no proper {key}")
    stored = values.get("password_hash")
    if stored is not None and not (isinstance(stored, str) and passwords.is_hash(stored)):
        raise ImportRefused(reason=f"the password hash of {values['name']!r} is not one of bcrypt")


def _user(conn: Connection, key: str, name: str, project: str, stored: str | None) -> None:
    state.add(
        conn, "user", id=key, domain_id=DEFAULT_DOMAIN, name=name, default_project_id=project, password_hash=stored,
        enabled=True,
    )  # fmt: skip


def _grant(conn: Connection, user: str, kind: str, target: str, role: str) -> None:
    found = state.by_name(conn, "role", role)
    assert found is not None
    state.grant(conn, user, kind, target, found.id)


def _plain(row: Any) -> dict[str, Any]:
    return {
        key: value.isoformat() if isinstance(value, datetime.datetime) else value
        for key, value in row.items()
        if key not in {"created_at", "updated_at", "tokens_valid_after"}
    }
