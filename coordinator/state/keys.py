"""Rows of the sealed key store. What is stored here is sealed; `coordinator.keys` opens it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from coordinator.state import deposits
from coordinator.state.locks import hold_name
from coordinator.state.savepoint import savepoint
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.images import image_properties, images
from coordinator.state.tables.keys import key_checks, secrets, site_secrets
from coordinator.state.tables.registered_images import registered_images
from coordinator.state.tables.snapshots import snapshots
from coordinator.state.tables.volumes import volumes

KEY_PROPERTIES = ("os_encrypt_key_id", "cinder_encryption_key_id")
FIXED_KEY = "00000000-0000-0000-0000-000000000000"
"""The id that Cinder's fixed-key manager gives every volume: it names no secret, and is shown to nobody."""
_SHOWN = [column for column in secrets.c if column.name not in ("nonce", "sealed")]


def add(conn: Connection, **values: Any) -> None:
    conn.execute(insert(secrets).values(**values))


def add_once(conn: Connection, **values: Any) -> None:
    """Unless a row of that id is there, also one that another coordinator adds at this moment."""
    with suppress(IntegrityError), savepoint(conn):
        conn.execute(insert(secrets).values(**values))


def get(conn: Connection, key_id: str) -> Row[Any] | None:
    """The whole row, sealed value included."""
    return conn.execute(select(secrets).where(secrets.c.id == key_id)).one_or_none()


def show(conn: Connection, key_id: str) -> Row[Any] | None:
    """The row without its sealed value."""
    query = select(*_SHOWN).where(secrets.c.id == key_id, secrets.c.project_id != SITE[1])
    return conn.execute(query).one_or_none()


def listing(
    conn: Connection, project_id: str | None = None, *, marker: str | None = None, limit: int | None = None
) -> Sequence[Row[Any]]:
    """Newest first, without sealed values; `project_id` None means all projects; `marker` is the last of them seen."""
    query = select(*_SHOWN).where(secrets.c.project_id != SITE[1])
    query = query.order_by(secrets.c.created_at.desc(), secrets.c.id.desc()).limit(limit)
    if project_id is not None:
        query = query.where(secrets.c.project_id == project_id)
    if marker is not None:
        known = [secrets.c.project_id == project_id] if project_id is not None else []
        last = select(secrets.c.created_at).where(secrets.c.id == marker, *known).scalar_subquery()
        query = query.where((secrets.c.created_at < last) | ((secrets.c.created_at == last) & (secrets.c.id < marker)))
    return conn.execute(query).all()


SITE = ("00000000-0000-4000-8000-000000000001", "")
"""Id and project of the site's own secret, which no user can see."""


def remove(conn: Connection, key_id: str) -> bool:
    """Whether it was there; what was, or may have been, deposited of it is to go, too."""
    parts = (deposits.MANAGER, secrets.c.deposit_name, secrets.c.moving_to, secrets.c.moving_name)
    gone = conn.execute(delete(secrets).where(secrets.c.id == key_id).returning(*parts)).one_or_none()
    if gone is not None:
        deposits.leave(conn, gone.deposit_name, gone.manager)
        deposits.leave(conn, gone.moving_name, gone.moving_to)
    return gone is not None


def rename(conn: Connection, key_id: str, **values: Any) -> None:
    """Give a secret another id, under which it is sealed anew."""
    conn.execute(update(secrets).where(secrets.c.id == key_id).values(updated_at=utcnow(), **values))


def not_sealed_with(conn: Connection, kek_id: str) -> Sequence[Row[Any]]:
    """All rows that another key-encryption key seals."""
    return conn.execute(select(secrets).where(secrets.c.kek_id != kek_id)).all()


def reseal(conn: Connection, key_id: str, *, kek_id: str, nonce: bytes, sealed: bytes) -> None:
    values = {"kek_id": kek_id, "nonce": nonce, "sealed": sealed, "updated_at": utcnow()}
    conn.execute(update(secrets).where(secrets.c.id == key_id).values(**values))


def used_by(conn: Connection, key_id: str) -> tuple[str, str] | None:
    """(noun, id) of a live volume, snapshot or image that needs this secret; None when nothing does."""
    for noun, table in (("volume", volumes), ("snapshot", snapshots)):
        query = select(table.c.id).where(table.c.encryption_key_id == key_id, ~table.c.deleted)
        if (found := conn.execute(query.limit(1)).scalar_one_or_none()) is not None:
            return noun, str(found)
    query = (
        select(images.c.id)
        .join(image_properties, image_properties.c.image_id == images.c.id)
        .join(secrets, (secrets.c.id == image_properties.c.value) & (secrets.c.project_id == images.c.owner))
        .where(image_properties.c.key.in_(KEY_PROPERTIES), image_properties.c.value == key_id, ~images.c.deleted)
    )
    elsewhere = select(registered_images.c.image_id).where(registered_images.c.key_id == key_id)
    found = conn.execute(query.union_all(elsewhere).limit(1)).scalar_one_or_none()
    return None if found is None else ("image", str(found))


def users_after(conn: Connection, marker: str | None, limit: int) -> Sequence[Row[Any]]:
    """Live encrypted volumes in the order of their ids, and how many live snapshots each has."""
    of_it = select(func.count()).where(snapshots.c.volume_id == volumes.c.id, ~snapshots.c.deleted).scalar_subquery()
    columns = (volumes.c.id, volumes.c.name, volumes.c.project_id, volumes.c.status, of_it.label("snapshots"))
    chosen = (*columns, volumes.c.encryption_key_id.label("key_id"))
    query: Select[Any] = select(*chosen).order_by(volumes.c.id).limit(limit)
    query = query.where(volumes.c.encryption_key_id.is_not(None), ~volumes.c.deleted)
    return conn.execute(query if marker is None else query.where(volumes.c.id > marker)).all()


def checks(conn: Connection) -> Sequence[Row[Any]]:
    """The check values of the key-encryption keys in use."""
    return conn.execute(select(key_checks)).all()


def add_check(conn: Connection, *, kek_id: str, nonce: bytes, sealed: bytes) -> None:
    conn.execute(insert(key_checks).values(kek_id=kek_id, nonce=nonce, sealed=sealed))


def drop_other_checks(conn: Connection, kek_id: str) -> None:
    conn.execute(delete(key_checks).where(key_checks.c.kek_id != kek_id))


def of_site(conn: Connection, name: str) -> Row[Any] | None:
    """What the site keeps under this name, sealed. In a write, nobody else changes it until the end."""
    hold_name(conn, f"site-secret:{name}")
    return conn.execute(select(site_secrets).where(site_secrets.c.name == name)).one_or_none()


def put_of_site(conn: Connection, name: str, *, kek_id: str, nonce: bytes, sealed: bytes) -> None:
    """Keep, or replace, what the site has under this name."""
    conn.execute(delete(site_secrets).where(site_secrets.c.name == name))
    values = {"kek_id": kek_id, "nonce": nonce, "sealed": sealed, "updated_at": utcnow()}
    conn.execute(insert(site_secrets).values(name=name, **values))


def drop_of_site(conn: Connection, name: str) -> None:
    """Keep nothing under this name."""
    conn.execute(delete(site_secrets).where(site_secrets.c.name == name))


def site_not_sealed_with(conn: Connection, kek_id: str) -> Sequence[Row[Any]]:
    """What another key-encryption key seals."""
    return conn.execute(select(site_secrets).where(site_secrets.c.kek_id != kek_id)).all()
