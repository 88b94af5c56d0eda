"""Where copies of keys lie: at which key manager, what is on its way to another one, and what has to go from one.

A name is used for one deposit alone and never again, so that what removes an old one can not hit a newer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, case, exists, func, insert, select, update

from agent.base.ids import new_id
from coordinator.lifecycle.volume import VOLUME
from coordinator.state.locks import hold
from coordinator.state.operations import is_active
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.keys import key_removals, secrets
from coordinator.state.tables.operations import operations
from coordinator.state.tables.volumes import volumes

LOCAL = "local"
"""No manager at all: the sealed store alone."""
_OF_NAME = case((secrets.c.deposit_name == "brickyard-" + secrets.c.id, "vault"), else_="barbican")
_KNOWN = case((secrets.c.external, func.coalesce(secrets.c.manager, _OF_NAME)), else_=secrets.c.manager)
MANAGER = _KNOWN.label("manager")
"""Who has the key. A row of the release before does not say; but a Vault alone keeps the id, which makes the name."""
_ELSEWHERE = (secrets.c.external, secrets.c.moving_to.is_not(None))


@dataclass(frozen=True, slots=True)
class Deposit:
    """A key at a manager: `id` is the one there."""

    manager: str
    name: str
    id: str


def leave(conn: Connection, name: str | None, manager: str | None) -> None:
    """Have what lies under this name removed from the manager; without a name there is nothing."""
    if name is not None:
        conn.execute(insert(key_removals).values(name=name, manager=manager, created_at=utcnow()))


def _of_volumes() -> Select[Any]:
    columns = (volumes.c.id.label("volume_id"), volumes.c.user_id, secrets.c.id.label("key_id"), secrets.c.external)
    query = select(*columns, MANAGER, secrets.c.moving_to)
    return query.join(secrets, secrets.c.id == volumes.c.encryption_key_id).where(~volumes.c.deleted)


def not_deposited(conn: Connection, limit: int, after: str = "") -> Sequence[Row[Any]]:
    """Volumes that nothing is done with, whose keys (`key_id`, in this order) no key manager has."""
    query = _of_volumes().where(~secrets.c.external, volumes.c.status.in_(VOLUME.stable), secrets.c.id > after)
    return conn.execute(query.order_by(secrets.c.id).limit(limit)).all()


def moving(conn: Connection, limit: int, after: str = "") -> Sequence[Row[Any]]:
    """Volumes that nothing is done with, whose keys (`key_id`, in this order) are to lie somewhere else."""
    query = _of_volumes().where(*_ELSEWHERE, volumes.c.status.in_(VOLUME.stable), secrets.c.id > after)
    return conn.execute(query.order_by(secrets.c.id).limit(limit)).all()


def of_volume(conn: Connection, volume_id: str) -> Row[Any] | None:
    """The key of a volume; None when it has none."""
    return conn.execute(_of_volumes().where(volumes.c.id == volume_id)).one_or_none()


def note(conn: Connection, key_id: str, manager: str) -> str | None:
    """The name under which the key is to be deposited there, noted with it; None when the key is gone, or is there."""
    row = conn.execute(select(secrets, _KNOWN.label("held_by")).where(secrets.c.id == key_id)).one_or_none()
    if row is None or (row.external and manager == row.held_by):
        return None
    name, to = (row.moving_name, row.moving_to) if row.external else (row.deposit_name, row.manager)
    if name is not None and to not in {None, manager}:
        leave(conn, name, to)
        name = None
    fresh = new_id() if row.external or row.deposit_name is not None else key_id
    called: str = name or f"brickyard-{fresh}"
    parts = ("moving_name", "moving_to") if row.external else ("deposit_name", "manager")
    conn.execute(update(secrets).where(secrets.c.id == key_id).values(dict(zip(parts, (called, manager), strict=True))))
    return called


def awaited(row: Row[Any]) -> str | None:
    """The name under which a key is about to be deposited."""
    name: str | None = row.moving_name if row.external else row.deposit_name
    return name


def settled(conn: Connection, row: Row[Any], there: Deposit) -> dict[str, Any]:
    """What a key's row says once it lies there; where it was before, it is to go."""
    if row.external:
        leave(conn, row.deposit_name, held_by(conn, row.id))
    said = {"deposit_name": there.name, "manager": there.manager, "external": True}
    return {**said, "moving_to": None, "moving_name": None}


def home(conn: Connection, row: Row[Any]) -> dict[str, Any]:
    """What a key's row says once it lies in the sealed store alone."""
    leave(conn, row.deposit_name, held_by(conn, row.id))
    leave(conn, row.moving_name, row.moving_to)
    name = f"brickyard-{new_id()}"
    return {"deposit_name": name, "manager": None, "external": False, "moving_to": None, "moving_name": None}


def held_by(conn: Connection, key_id: str) -> str | None:
    """The key manager that has the key."""
    found: str | None = conn.execute(select(_KNOWN).where(secrets.c.id == key_id)).scalar_one()
    return found


def id_of(conn: Connection, name: str) -> str | None:
    """The id of the secret that is, or is to be, deposited under this name."""
    named = (secrets.c.deposit_name == name) | (secrets.c.moving_name == name)
    found: str | None = conn.execute(select(secrets.c.id).where(named).limit(1)).scalar_one_or_none()
    return found


def exchange(conn: Connection, volume_id: str, old: str, new: str) -> bool:
    """Let a volume that nothing is done with name the secret `new` in the place of `old`; whether it was so."""
    hold(conn, volumes, volume_id)
    at_work = exists(select(operations.c.id).where(operations.c.resource_id == volume_id, is_active()))
    same = (volumes.c.id == volume_id, volumes.c.encryption_key_id == old, volumes.c.status.in_(VOLUME.stable))
    query = update(volumes).where(*same, ~volumes.c.deleted, ~at_work).values(encryption_key_id=new)
    return conn.execute(query).rowcount == 1


def leaving(conn: Connection, limit: int, managers: Collection[str]) -> Sequence[Row[Any]]:
    """(name, manager) of what has to go from these managers, oldest first; the manager may not be known."""
    ours = key_removals.c.manager.is_(None) | key_removals.c.manager.in_(managers)
    return conn.execute(select(key_removals).where(ours).order_by(key_removals.c.created_at).limit(limit)).all()


def left(conn: Connection, name: str) -> None:
    """It is gone from the key manager."""
    conn.execute(key_removals.delete().where(key_removals.c.name == name))


def move_all(conn: Connection, target: str) -> None:
    """Let every deposited key move to that manager, or `local`; what was on its way elsewhere turns round.

    A first deposit that was begun elsewhere and not ended is taken back, too: only a kill leaves such.
    """
    of_before = secrets.c.manager.is_(None) & (secrets.c.deposit_name == "brickyard-" + secrets.c.id)
    begun = (secrets.c.manager != target) | of_before
    half = select(secrets.c.id, secrets.c.deposit_name, secrets.c.manager).where(~secrets.c.external, begun)
    for row in conn.execute(half).all():
        leave(conn, row.deposit_name, row.manager)
        anew = {"deposit_name": f"brickyard-{new_id()}", "manager": None}
        conn.execute(update(secrets).where(secrets.c.id == row.id).values(**anew))
    lies: ColumnElement[str] = _KNOWN
    query = select(secrets.c.moving_name, secrets.c.moving_to).where(
        secrets.c.moving_name.is_not(None), secrets.c.moving_to != target
    )
    for name, manager in conn.execute(query).all():
        leave(conn, name, manager)
    there = secrets.c.external & (lies == target)
    turned = update(secrets).where(secrets.c.external, secrets.c.moving_to.is_not(None))
    conn.execute(turned.where(there | (secrets.c.moving_to != target)).values(moving_to=None, moving_name=None))
    conn.execute(update(secrets).where(secrets.c.external, lies != target).values(moving_to=target))


def places(conn: Connection) -> dict[str, int]:
    """How many keys of volumes lie at each manager; those in the sealed store alone count as `local`."""
    where = case((secrets.c.external, _KNOWN), else_=LOCAL)
    query = select(where, func.count()).select_from(volumes.join(secrets, secrets.c.id == volumes.c.encryption_key_id))
    found = conn.execute(query.where(~volumes.c.deleted).group_by(where)).all()
    return {row[0]: row[1] for row in found}


def removals(conn: Connection) -> dict[str | None, int]:
    """How much has to go from each manager still."""
    query = select(key_removals.c.manager, func.count()).group_by(key_removals.c.manager)
    return {row[0]: row[1] for row in conn.execute(query).all()}
