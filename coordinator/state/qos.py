"""QoS specs: rows, values, and the types that have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from agent.base.errors import Conflict, Invalid, NotFound
from agent.base.ids import new_id
from coordinator.state.json_rows import pairs_column, pairs_in
from coordinator.state.paging import Page, page_of
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.qos import qos_spec_values as values_table
from coordinator.state.tables.qos import qos_specs as table
from coordinator.state.tables.types import volume_types
from coordinator.state.together import once

_WHOLE = select(table, pairs_column(values_table, "qos_specs_id", table.c.id).label("specs"))
_ONE = _WHOLE.where(table.c.id == bindparam("wanted"))
_OF_TYPE = _WHOLE.join(volume_types, volume_types.c.qos_specs_id == table.c.id).where(
    volume_types.c.id == bindparam("type")
)


class QosExists(Conflict):
    code = "qos.exists"
    sentence = "QoS Specs {name} already exists."


class QosInUse(Invalid):
    code = "qos.in-use"
    sentence = "QoS Specs {id} is still associated with entities."
    hint = "Disassociate it from its volume types, or delete it with force."


class TypeHasQos(Invalid):
    code = "qos.type-has-another"
    sentence = "Type {type} is already associated with another qos specs: {other}."
    hint = "Disassociate the type from those first."


class NoSuchKey(NotFound):
    code = "qos.no-such-key"
    sentence = "QoS spec {id} has no spec with key {key}."


@dataclass(frozen=True, slots=True)
class QosSpecs:
    """`specs` holds limits by name, as texts."""

    id: str
    name: str
    consumer: str
    specs: Mapping[str, str]


def _made(row: Row[Any]) -> QosSpecs:
    return QosSpecs(row.id, row.name, row.consumer, pairs_in(row.specs))


def get(conn: Connection, qos_id: str) -> QosSpecs:
    """Raises NotFound."""
    row = conn.execute(_ONE, {"wanted": qos_id}).one_or_none()
    if row is None:
        raise NotFound(noun="QoS specs", id=qos_id)
    return _made(row)


def of_type(conn: Connection, type_id: str | None) -> QosSpecs | None:
    """The specs that a volume type carries; None when it carries none."""
    if type_id is None:
        return None
    row = once(conn, ("type-qos", type_id), lambda: conn.execute(_OF_TYPE, {"type": type_id}).one_or_none())
    return _made(row) if row is not None else None


def listing(conn: Connection, where: Iterable[Any], page: Page) -> list[QosSpecs]:
    return [_made(row) for row in page_of(conn, _WHOLE.where(*where), table, page)]


def create(conn: Connection, name: str, consumer: str, specs: Mapping[str, str]) -> QosSpecs:
    """Raises QosExists (409)."""
    if conn.execute(select(table.c.id).where(table.c.name == name)).first() is not None:
        raise QosExists(name=name)
    qos_id = new_id()
    conn.execute(insert(table).values(id=qos_id, name=name, consumer=consumer))
    _put(conn, qos_id, specs)
    return QosSpecs(qos_id, name, consumer, specs)


def change(conn: Connection, qos_id: str, consumer: str | None, specs: Mapping[str, str]) -> None:
    """Set the consumer (None leaves it) and these values."""
    get(conn, qos_id)
    values = {"updated_at": utcnow()} | ({"consumer": consumer} if consumer is not None else {})
    conn.execute(update(table).where(table.c.id == qos_id).values(**values))
    conn.execute(delete(values_table).where(values_table.c.qos_specs_id == qos_id, values_table.c.key.in_(specs)))
    _put(conn, qos_id, specs)


def _put(conn: Connection, qos_id: str, specs: Mapping[str, str]) -> None:
    if specs:
        rows = [{"qos_specs_id": qos_id, "key": key, "value": value} for key, value in specs.items()]
        conn.execute(insert(values_table), rows)


def remove_keys(conn: Connection, qos_id: str, keys: Sequence[str]) -> None:
    """All of them or, raising NoSuchKey, none."""
    known = get(conn, qos_id).specs
    for key in keys:
        if key not in known:
            raise NoSuchKey(id=qos_id, key=key)
    conn.execute(delete(values_table).where(values_table.c.qos_specs_id == qos_id, values_table.c.key.in_(keys)))
    conn.execute(update(table).where(table.c.id == qos_id).values(updated_at=utcnow()))


def remove(conn: Connection, qos_id: str, *, force: bool) -> None:
    """Raises QosInUse (400) while types carry it; `force` takes it from them."""
    get(conn, qos_id)
    if associations(conn, qos_id):
        if not force:
            raise QosInUse(id=qos_id)
        disassociate_all(conn, qos_id)
    conn.execute(delete(values_table).where(values_table.c.qos_specs_id == qos_id))
    conn.execute(delete(table).where(table.c.id == qos_id))


def associations(conn: Connection, qos_id: str) -> Sequence[Row[str, str]]:
    """Id and name of the types that carry it, by name."""
    query = select(volume_types.c.id, volume_types.c.name).where(
        volume_types.c.qos_specs_id == qos_id, ~volume_types.c.deleted
    )
    return conn.execute(query.order_by(volume_types.c.name)).all()


def associate(conn: Connection, qos_id: str, of: Row[Any]) -> None:
    """Let the type carry it. Raises TypeHasQos when it carries another."""
    get(conn, qos_id)
    if of.qos_specs_id not in {None, qos_id}:
        raise TypeHasQos(type=of.id, other=of.qos_specs_id)
    _tie(conn, volume_types.c.id == of.id, qos_id)


def disassociate(conn: Connection, qos_id: str, of: Row[Any]) -> None:
    """Take it from the type; nothing when the type does not carry it."""
    get(conn, qos_id)
    if of.qos_specs_id == qos_id:
        _tie(conn, volume_types.c.id == of.id, None)


def disassociate_all(conn: Connection, qos_id: str) -> None:
    get(conn, qos_id)
    _tie(conn, volume_types.c.qos_specs_id == qos_id, None)


def _tie(conn: Connection, which: Any, qos_id: str | None) -> None:
    conn.execute(update(volume_types).where(which).values(qos_specs_id=qos_id, updated_at=utcnow()))
