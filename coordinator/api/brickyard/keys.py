"""Secrets of the built-in key store: register, list, show, delete. A value goes in and never comes out here."""

from __future__ import annotations

import base64
import binascii
import datetime
from typing import Annotated, Any, Literal

from pydantic import Field
from sqlalchemy import Row

from coordinator.api.acting import own_project
from coordinator.api.call import Call
from coordinator.api.fields import Answer, Body, Hidden, Name, Positive, Time
from coordinator.api.route import Resource, delete, get, post
from coordinator.images.errors import ImageInvalid
from coordinator.keys.errors import SecretInvalid
from coordinator.keys.store import MAX_BYTES, KeyStore

Type = Literal["passphrase", "symmetric", "opaque", "private", "public", "certificate"]
DEFAULT_LIMIT = 100


class NewKey(Body):
    """Either `payload_b64` (the value in base64), or nothing: then a key of `bit_length` bits is made."""

    type: Type = "symmetric"
    payload_b64: Annotated[str | None, Hidden()] = Field(None, max_length=4 * MAX_BYTES)
    name: Name | None = None
    algorithm: Annotated[str | None, Field(max_length=16)] = None
    bit_length: Positive | None = None


class KeyAnswer(Answer):
    id: str
    type: str
    name: str | None
    algorithm: str | None
    bit_length: int | None
    project_id: str
    user_id: str
    created_at: Time


class KeysAnswer(Answer):
    keys: list[KeyAnswer]
    next_marker: str | None


class OpenedVolume(Answer):
    """`key`: `opens`; where its own secret is `damaged` or `missing`, nobody can say what opens it."""

    id: str
    name: str | None
    project_id: str
    status: str
    snapshots: int
    key_id: str
    key: Literal["opens", "damaged", "missing"]


class OpenedAnswer(Answer):
    volumes: list[OpenedVolume]
    next_marker: str | None


def keys() -> Resource:
    """The resource table."""
    look = "brickyard:keys:get"
    return Resource(
        name="keys",
        about="Secrets that volumes and images are encrypted with. Values can be put in, never read out.",
        prefix="/brickyard/v1/keys",
        routes=(
            post("", _create, "brickyard:keys:create", "Register a secret, or have a key made.", body=NewKey,
                 body_key="key", answer=KeyAnswer, answer_key="key", status=201),
            get("", _list, look, "List the project's secrets.", answer=KeysAnswer, query=("limit", "marker")),
            get("/{key_id}", _show, look, "Show what is known of a secret.", answer=KeyAnswer, answer_key="key"),
            get("/{key_id}/volumes", _volumes, "brickyard:keys:volumes", "List volumes, of all projects, with a key "
                "of the same value, or one that can not be read; a page may be shorter than its limit.",
                answer=OpenedAnswer, query=("limit", "marker")),
            delete("/{key_id}", _delete, "brickyard:keys:delete", "Delete a secret that nothing uses.", status=204),
        ),
    )  # fmt: skip


def decoded(text: str) -> bytes:
    """The bytes of a payload; raises SecretInvalid, which does not quote it."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SecretInvalid(reason="its payload is not base64") from None


def key_view(row: Row[Any]) -> dict[str, Any]:
    names = ("id", "type", "name", "algorithm", "bit_length", "project_id", "user_id")
    created: datetime.datetime = row.created_at
    return {**{name: getattr(row, name) for name in names}, "created_at": created}


async def _create(call: Call) -> dict[str, Any]:
    wanted, store = call.valid(NewKey), call.services.get(KeyStore)
    owner = {"project_id": own_project(call), "user_id": call.context.user_id}

    def run(conn: Any) -> Row[Any]:
        if wanted.payload_b64 is None:
            if wanted.type != "symmetric":
                raise SecretInvalid(reason=f"a secret of type {wanted.type} needs a payload")
            key_id = store.generate(conn, **owner, bits=wanted.bit_length or 256, name=wanted.name)
        else:
            key_id = store.create(
                conn, **owner, type=wanted.type, value=decoded(wanted.payload_b64), name=wanted.name,
                algorithm=wanted.algorithm, bit_length=wanted.bit_length,
            )  # fmt: skip
        return store.show(conn, key_id)

    return key_view(await call.services.db.write(run))


async def _list(call: Call) -> dict[str, Any]:
    store, project_id = call.services.get(KeyStore), call.context.project_id
    limit, marker = _limit(call), call.query.get("marker")
    rows = await call.services.db.read(
        lambda conn: store.listing(conn, project_id, marker=marker, limit=limit + 1)
    )  # fmt: skip
    more = len(rows) > limit
    return {"keys": [key_view(row) for row in rows[:limit]], "next_marker": rows[limit - 1].id if more else None}


def _limit(call: Call) -> int:
    text = call.query.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 10):
        raise ImageInvalid(reason="limit must be a whole number")
    return max(1, min(int(text), call.services.settings.max_limit))


async def _volumes(call: Call) -> dict[str, Any]:
    store, key_id, limit = call.services.get(KeyStore), call.params["key_id"], _limit(call)
    found, last = await call.services.db.read(
        lambda conn: store.opened_by(conn, key_id, marker=call.query.get("marker"), limit=limit)
    )
    names = OpenedVolume.model_fields.keys() - {"key"}
    volumes = [{**{name: getattr(row, name) for name in names}, "key": standing} for row, standing in found]
    return {"volumes": volumes, "next_marker": last}


def _visible(call: Call) -> str | None:
    """The project whose secrets the caller may name; None: all."""
    return None if call.context.is_admin else call.context.project_id


async def _show(call: Call) -> dict[str, Any]:
    store, key_id, project_id = call.services.get(KeyStore), call.params["key_id"], _visible(call)
    return key_view(await call.services.db.read(lambda conn: store.show(conn, key_id, project_id=project_id)))


async def _delete(call: Call) -> None:
    store, key_id, project_id = call.services.get(KeyStore), call.params["key_id"], _visible(call)
    await call.services.db.write(lambda conn: store.discard(conn, key_id, project_id=project_id))
