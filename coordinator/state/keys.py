"""Rows of the sealed key store. What is stored here is sealed; `coordinator.keys` opens it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from coordinator.lifecycle.volume import VOLUME
from coordinator.state.locks import hold, hold_name
from coordinator.state.operations import is_active
from coordinator.state.savepoint import savepoint
from coordinator.state.tables.columns import utcnow
from coordinator.state.tables.images import image_properties, images
from coordinator.state.tables.keys import key_checks, key_removals, secrets, site_secrets
from coordinator.state.tables.operations import operations
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
    """Newest first, without sealed values; `project_id` None means all projects; `marker` is the last id seen."""
    query = select(*_SHOWN).where(secrets.c.project_id != SITE[1])
    query = query.order_by(secrets.c.created_at.desc(), secrets.c.id.desc()).limit(limit)
    if project_id is not None:
        query = query.where(secrets.c.project_id == project_id)
    if marker is not None:
        last = select(secrets.c.created_at).where(secrets.c.id == marker).scalar_subquery()
        query = query.where((secrets.c.created_at < last) | ((secrets.c.created_at == last) & (secrets.c.id < marker)))
    return conn.execute(query).all()


SITE = ("00000000-0000-4000-8000-000000000001", "")
"""Id and project of the site's own secret, which no user can see."""


def remove(conn: Connection, key_id: str) -> bool:
    """Whether it was there; what was, or may have been, deposited of it is to go, too."""
    gone = conn.execute(delete(secrets).where(secrets.c.id == key_id).returning(secrets.c.deposit_name)).one_or_none()
    if gone is not None and gone.deposit_name is not None:
        conn.execute(insert(key_removals).values(name=gone.deposit_name, created_at=utcnow()))
    return gone is not None


def _of_volumes() -> Select[Any]:
    columns = (volumes.c.id.label("volume_id"), volumes.c.user_id, secrets.c.id.label("key_id"), secrets.c.external)
    return select(*columns).join(secrets, secrets.c.id == volumes.c.encryption_key_id).where(~volumes.c.deleted)


def not_deposited(conn: Connection, limit: int) -> Sequence[Row[Any]]:
    """Volumes that nothing is done with, whose keys (`key_id`) no key manager has."""
    query = _of_volumes().where(~secrets.c.external, volumes.c.status.in_(VOLUME.stable))
    return conn.execute(query.order_by(secrets.c.created_at).limit(limit)).all()


def of_volume(conn: Connection, volume_id: str) -> Row[Any] | None:
    """The key of a volume; None when it has none."""
    return conn.execute(_of_volumes().where(volumes.c.id == volume_id)).one_or_none()


def note_deposit(conn: Connection, key_id: str) -> str | None:
    """The name under which the key is to be deposited, noted with it; None when the key is gone, or is there."""
    row = conn.execute(select(secrets).where(secrets.c.id == key_id, ~secrets.c.external)).one_or_none()
    if row is None:
        return None
    name = row.deposit_name or f"brickyard-{key_id}"
    conn.execute(update(secrets).where(secrets.c.id == key_id).values(deposit_name=name))
    return name


def rename(conn: Connection, key_id: str, **values: Any) -> None:
    """Give a secret another id, under which it is sealed anew."""
    conn.execute(update(secrets).where(secrets.c.id == key_id).values(updated_at=utcnow(), **values))


def has_name(conn: Connection, name: str) -> bool:
    """Whether a secret is, or is to be, deposited under this name."""
    return conn.execute(select(secrets.c.id).where(secrets.c.deposit_name == name).limit(1)).first() is not None


def exchange(conn: Connection, volume_id: str, old: str, new: str) -> bool:
    """Let a volume that nothing is done with name the secret `new` in the place of `old`; whether it was so."""
    hold(conn, volumes, volume_id)
    at_work = exists(select(operations.c.id).where(operations.c.resource_id == volume_id, is_active()))
    same = (volumes.c.id == volume_id, volumes.c.encryption_key_id == old, volumes.c.status.in_(VOLUME.stable))
    query = update(volumes).where(*same, ~volumes.c.deleted, ~at_work).values(encryption_key_id=new)
    return conn.execute(query).rowcount == 1


def leaving(conn: Connection, limit: int) -> Sequence[str]:
    """Names of what has to go from the key manager, oldest first."""
    return conn.execute(select(key_removals.c.name).order_by(key_removals.c.created_at).limit(limit)).scalars().all()


def left(conn: Connection, name: str) -> None:
    """It is gone from the key manager."""
    conn.execute(delete(key_removals).where(key_removals.c.name == name))


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
    found = conn.execute(query.limit(1)).scalar_one_or_none()
    return None if found is None else ("image", str(found))


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
