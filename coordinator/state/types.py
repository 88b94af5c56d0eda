"""Volume types: rows, extra specs, encryption, access."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    exists,
    insert,
    not_,
    or_,
    select,
    update,
)

from agent.base.errors import Conflict, Invalid, NotFound
from agent.base.ids import new_id
from coordinator.state.locks import hold, hold_name, shared
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.quotas import quota_limits
from coordinator.state.tables.types import type_access, type_encryption, type_extra_specs, volume_types
from coordinator.state.tables.volumes import volumes
from coordinator.state.together import once

DEFAULT_NAME = "__DEFAULT__"
PER_TYPE = ("volumes", "gigabytes", "snapshots")
"""Resources that have a limit of their own for each type, `RESOURCE_TYPE`."""
_NAMES = "volume-type-names"

_SPECS = select(type_extra_specs.c.key, type_extra_specs.c.value).where(
    type_extra_specs.c.volume_type_id == bindparam("type")
)
_ENCRYPTION = select(type_encryption).where(type_encryption.c.volume_type_id == bindparam("type"))


class TypeExists(Conflict):
    code = "type.exists"
    sentence = "Volume Type {name} already exists."


class NoSuchSpec(NotFound):
    code = "type.no-such-spec"
    sentence = "Volume Type {type} has no extra specs with key {key}."


class SpecsInUse(Invalid):
    code = "type.specs-in-use"
    sentence = "Volume Type is currently in use."
    hint = "Its volumes were placed by these extra specs: make another type, and retype its volumes."


class TypeInUse(Conflict):
    code = "type.in-use"
    status = 400
    sentence = "Volume Type {id} is in use; its volumes must be deleted or retyped first."


def _granted(project: Any) -> ColumnElement[bool]:
    mine = (type_access.c.volume_type_id == volume_types.c.id, type_access.c.project_id == project)
    return or_(volume_types.c.is_public, exists(select(type_access.c.project_id).where(*mine)))


_ONE = select(volume_types).where(~volume_types.c.deleted, volume_types.c.id == bindparam("type"))
_VISIBLE_ONE = _ONE.where(_granted(bindparam("project")))
_HIDDEN = select(volume_types.c.id).where(
    ~volume_types.c.deleted, volume_types.c.name == bindparam("name"), not_(_granted(bindparam("project")))
)


def _visible(project_id: str | None) -> Select[Any]:
    query = select(volume_types).where(~volume_types.c.deleted)
    return query if project_id is None else query.where(_granted(project_id))


def get(conn: Connection, type_id: str, project_id: str | None = None) -> Row[Any]:
    """A live type that the project may see; raises NotFound."""
    query = shared(conn, _ONE if project_id is None else _VISIBLE_ONE)
    asked = {"type": type_id, "project": project_id}
    of = () if project_id is None else (project_id,)
    row = once(conn, ("type", type_id, *of), lambda: conn.execute(query, asked).one_or_none())
    if row is None:
        raise NotFound(noun="Volume type", id=type_id)
    return row


def find(conn: Connection, name_or_id: str, project_id: str | None = None) -> Row[Any]:
    """By id, else by name."""
    either = or_(volume_types.c.id == name_or_id, volume_types.c.name == name_or_id)
    rows = conn.execute(_visible(project_id).where(either)).all()
    if not rows:
        raise NotFound(noun="Volume type", id=name_or_id)
    return next((row for row in rows if row.id == name_or_id), rows[0])


def is_hidden(conn: Connection, name: str, project_id: str) -> bool:
    """Whether there is a type of this name that the project may not see."""
    asked = {"name": name, "project": project_id}
    return once(conn, ("type-hidden", name, project_id), lambda: conn.execute(_HIDDEN, asked).first() is not None)


def listing(conn: Connection, project_id: str | None = None) -> Sequence[Row[Any]]:
    return conn.execute(_visible(project_id).order_by(volume_types.c.created_at.desc(), volume_types.c.id)).all()


def create(conn: Connection, name: str, description: str | None, *, is_public: bool = True) -> Row[Any]:
    hold_name(conn, _NAMES)
    taken = conn.execute(select(volume_types.c.id).where(volume_types.c.name == name, ~volume_types.c.deleted)).first()
    if taken is not None:
        raise TypeExists(name=name)
    values = {"id": new_id(), "name": name, "description": description, "is_public": is_public}
    return conn.execute(insert(volume_types).values(**values).returning(volume_types)).one()


def ensure_default(conn: Connection, name: str) -> Row[Any]:
    """The default type, made when it is the built-in one; raises NotFound for a configured name that is not there."""
    try:
        return find(conn, name)
    except NotFound:
        if name != DEFAULT_NAME:
            raise
    return create(conn, name, "Volumes whose creator names no type")


def change(conn: Connection, type_id: str, **values: Any) -> Row[Any]:
    """Set name, description or visibility."""
    hold_name(conn, _NAMES)
    hold(conn, volume_types, type_id)
    former = get(conn, type_id).name
    if "name" in values:
        same = (volume_types.c.name == values["name"], volume_types.c.id != type_id, ~volume_types.c.deleted)
        if conn.execute(select(volume_types.c.id).where(*same)).first() is not None:
            raise TypeExists(name=values["name"])
        _rename_limits(conn, former, values["name"])
    query = update(volume_types).where(volume_types.c.id == type_id).values(updated_at=utcnow(), **values)
    return conn.execute(query.returning(volume_types)).one()


def remove(conn: Connection, type_id: str) -> None:
    """Delete a type that no live volume has."""
    hold(conn, volume_types, type_id)
    name = get(conn, type_id).name
    if is_used(conn, type_id):
        raise TypeInUse(id=type_id)
    conn.execute(delete(quota_limits).where(quota_limits.c.resource.in_(_limits_of(name))))
    conn.execute(update(volume_types).where(volume_types.c.id == type_id).values(deleted=True, deleted_at=utcnow()))


def is_used(conn: Connection, type_id: str) -> bool:
    """Whether a volume has it."""
    used = select(volumes.c.id).where(volumes.c.volume_type_id == type_id, ~volumes.c.deleted).limit(1)
    return conn.execute(used).first() is not None


def is_live(conn: Connection, type_id: str) -> bool:
    """Whether the type has not been deleted."""
    return conn.execute(_ONE, {"type": type_id}).first() is not None


def _rename_limits(conn: Connection, former: str, name: str) -> None:
    """Limits are set by the type's name; a former type of the new name may have left some."""
    for old, new in zip(_limits_of(former), _limits_of(name), strict=True):
        if old != new:
            conn.execute(delete(quota_limits).where(quota_limits.c.resource == new))
            conn.execute(update(quota_limits).where(quota_limits.c.resource == old).values(resource=new))


def _limits_of(name: str) -> list[str]:
    return [f"{resource}_{name}" for resource in PER_TYPE]


def extra_specs(conn: Connection, type_id: str) -> dict[str, str]:
    rows = once(conn, ("type-specs", type_id), lambda: conn.execute(_SPECS, {"type": type_id}).all())
    return {row.key: row.value for row in rows}


def put_extra_specs(conn: Connection, type_id: str, specs: dict[str, str]) -> None:
    """Add or replace these keys."""
    table = type_extra_specs
    conn.execute(delete(table).where(table.c.volume_type_id == type_id, table.c.key.in_(specs)))
    if specs:
        conn.execute(insert(table), [{"volume_type_id": type_id, "key": k, "value": v} for k, v in specs.items()])


def remove_extra_spec(conn: Connection, type_id: str, key: str) -> None:
    table = type_extra_specs
    gone = conn.execute(delete(table).where(table.c.volume_type_id == type_id, table.c.key == key))
    if gone.rowcount == 0:
        raise NoSuchSpec(type=type_id, key=key)


def encryption(conn: Connection, type_id: str | None) -> Row[Any] | None:
    """The encryption of a type; None when it has none."""
    if type_id is None:
        return None
    return once(conn, ("type-encryption", type_id), lambda: conn.execute(_ENCRYPTION, {"type": type_id}).one_or_none())


def put_encryption(conn: Connection, type_id: str, values: dict[str, Any]) -> Row[Any]:
    """Set the encryption of a type that has none."""
    query = insert(type_encryption).values(volume_type_id=type_id, encryption_id=new_id(), **values)
    return conn.execute(query.returning(type_encryption)).one()


def change_encryption(conn: Connection, type_id: str, values: dict[str, Any]) -> Row[Any]:
    table = type_encryption
    query = update(table).where(table.c.volume_type_id == type_id).values(updated_at=utcnow(), **values)
    row = conn.execute(query.returning(table)).one_or_none()
    if row is None:
        raise NotFound(noun="Volume type encryption for type", id=type_id)
    return row


def remove_encryption(conn: Connection, type_id: str) -> None:
    table = type_encryption
    if conn.execute(delete(table).where(table.c.volume_type_id == type_id)).rowcount == 0:
        raise NotFound(noun="Volume type encryption for type", id=type_id)


def access(conn: Connection, type_id: str) -> list[str]:
    """Projects that may see a private type."""
    table = type_access
    return list(conn.execute(select(table.c.project_id).where(table.c.volume_type_id == type_id)).scalars())


def grant(conn: Connection, type_id: str, project_id: str) -> None:
    if project_id in access(conn, type_id):
        raise Conflict(reason=f"Volume type access for {type_id} / {project_id} combination already exists.")
    conn.execute(insert(type_access).values(volume_type_id=type_id, project_id=project_id))


def revoke(conn: Connection, type_id: str, project_id: str) -> None:
    table = type_access
    gone = conn.execute(delete(table).where(table.c.volume_type_id == type_id, table.c.project_id == project_id))
    if gone.rowcount == 0:
        raise NotFound(noun="Volume type access", id=f"{type_id} / {project_id}")
