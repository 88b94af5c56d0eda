"""The volume type of who names none: the project's own choice, else the site's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select

from agent.base.errors import Invalid, NotFound
from coordinator.state import types
from coordinator.state.tables.types import default_types as table
from coordinator.state.tables.types import volume_types
from coordinator.state.together import once

_EFFECTIVE = select(volume_types).where(
    volume_types.c.id == table.c.volume_type_id, table.c.project_id == bindparam("project"), ~volume_types.c.deleted
)
_SITE = select(volume_types).where(volume_types.c.name == bindparam("name"), ~volume_types.c.deleted)


class DefaultHidden(Invalid):
    code = "type.default-hidden"
    sentence = "Volume type {type} would be the default of project {project}, which has no access to it."
    hint = "Grant the project access first: openstack volume type set --project {project} {type}."


class DefaultRevoked(Invalid):
    code = "type.default-revoked"
    sentence = "Volume type {type} is the default of project {project}, which needs access to it."
    hint = "Give the project another default first: cinder default-type-unset {project}."


class DefaultMissing(Invalid):
    code = "type.default-missing"
    sentence = "The default volume type {name} cannot be found."
    hint = "Name a type, or have an administrator create {name} or configure another one (api.default_volume_type)."


def effective(conn: Connection, project_id: str, site: str) -> Row[Any] | None:
    """The type for a volume of this project whose creator names none; `site` names the site's default."""
    own = conn.execute(_EFFECTIVE, {"project": project_id}).one_or_none()
    return own if own is not None else conn.execute(_SITE, {"name": site}).one_or_none()


def needed(conn: Connection, project_id: str, site: str) -> Row[Any]:
    """Like `effective`; raises DefaultMissing where there is none."""
    found = once(conn, ("type-default", project_id, site), lambda: effective(conn, project_id, site))
    if found is None:
        raise DefaultMissing(name=site)
    return found


def get(conn: Connection, project_id: str) -> Row[Any]:
    """What a project has chosen; raises NotFound when it has not."""
    row = conn.execute(select(table).where(table.c.project_id == project_id)).one_or_none()
    if row is None:
        raise NotFound(noun="Default type for project", id=project_id)
    return row


def listing(conn: Connection) -> Sequence[Row[Any]]:
    """All that projects have chosen, by project."""
    return conn.execute(select(table).order_by(table.c.project_id)).all()


def put(conn: Connection, project_id: str, name_or_id: str) -> Row[Any]:
    """Set it. Raises Invalid (400) for a type that is not there or that the project can not use."""
    try:
        wanted = types.find(conn, name_or_id)
    except NotFound as error:
        raise Invalid(reason=str(error)) from None
    try:
        types.get(conn, wanted.id, project_id)
    except NotFound:
        raise DefaultHidden(type=wanted.name, project=project_id) from None
    remove(conn, project_id)
    return conn.execute(insert(table).values(project_id=project_id, volume_type_id=wanted.id).returning(table)).one()


def check_hiding(conn: Connection, type_id: str) -> None:
    """Raise DefaultHidden while a project whose default this type is would not see it if it were private."""
    granted = types.access(conn, type_id)
    for project_id in projects_of(conn, type_id):
        if project_id not in granted:
            raise DefaultHidden(type=types.get(conn, type_id).name, project=project_id)


def check_revoking(conn: Connection, type_id: str, project_id: str) -> None:
    """Raise DefaultRevoked while the type is the default of this project."""
    if project_id in projects_of(conn, type_id):
        raise DefaultRevoked(type=types.get(conn, type_id).name, project=project_id)


def remove(conn: Connection, project_id: str) -> None:
    """Back to the site's default; nothing when it was so already."""
    conn.execute(delete(table).where(table.c.project_id == project_id))


def projects_of(conn: Connection, type_id: str) -> Sequence[str]:
    """Projects whose default this type is."""
    return conn.execute(select(table.c.project_id).where(table.c.volume_type_id == type_id)).scalars().all()
