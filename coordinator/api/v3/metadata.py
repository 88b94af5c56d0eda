"""Metadata of volumes and snapshots: one set of handlers, with an ETag from 3.15 on."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any, ClassVar

from sqlalchemy import Connection, Row

from agent.base.errors import Conflict, NotFound
from coordinator.api.acting import owned_snapshot, owned_volume
from coordinator.api.call import Call, Reply
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Answer, Body, Metadata
from coordinator.api.route import Handler, Resource, delete, get, post, put
from coordinator.api.version import MAXIMUM
from coordinator.state import metadata
from coordinator.state.metadata import Kind

_ETAG_SINCE = 15
_TAG = re.compile(r'(?P<weak>W/)?(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s,"]+))')
Owner = Callable[[Connection, Call, str], Row[Any]]


class MetadataChanged(Conflict):
    code = "metadata.changed"
    status = 412
    sentence = "The metadata have changed since they were read (the ETag is another one)."
    hint = "Read them again, then repeat the change."


class NoSuchKey(NotFound):
    code = "metadata.no-such-key"
    sentence = "{noun} {id} has no metadata with key {key}."


class MetadataBody(Body):
    metadata: Metadata


class SnapshotMetadata(MetadataBody):
    """Whatever stands beside is passed over, as Cinder does here and not for volumes."""

    unknown_refused_from: ClassVar[int] = MAXIMUM + 1


class MetaBody(Body):
    meta: Metadata


class MetadataAnswer(Answer):
    metadata: dict[str, str]


class MetaAnswer(Answer):
    meta: dict[str, str]


def tag(values: dict[str, str]) -> str:
    """The same for the same keys and values, in whichever order."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()


def _body(noun: Kind) -> type[MetadataBody]:
    return SnapshotMetadata if noun == "snapshot" else MetadataBody


def resource(noun: Kind, owner: Owner, rules: str) -> Resource:
    """The routes of one noun; `rules` has `{verb}` where the rule's name has get, create, update or delete."""
    base, one = f"/{noun}s/{{{noun}_id}}/metadata", f"/{noun}s/{{{noun}_id}}/metadata/{{key}}"
    read, change = rules.format(verb="get"), rules.format(verb="update")
    create = rules.format(verb="create") if noun == "volume" else change
    calls = _handlers(noun, owner)
    body = _body(noun)
    return Resource(
        f"{noun}_metadata",
        f"Metadata of {noun}s.",
        (
            get(base, calls["all"], read, "All keys and values.", answer=MetadataAnswer),
            post(base, calls["merge"], create, "Add or overwrite keys.", body=body, answer=MetadataAnswer),
            put(base, calls["replace"], change, "Leave exactly these keys.", body=body,
                answer=MetadataAnswer),
            get(one, calls["one"], read, "The value of one key.", answer=MetaAnswer),
            put(one, calls["put"], change, "Set one key.", body=MetaBody, answer=MetaAnswer),
            delete(one, calls["remove"], rules.format(verb="delete"), "Remove one key.", status=200),
        ),
    )  # fmt: skip


def resources() -> tuple[Resource, ...]:
    """Metadata of volumes and of snapshots."""
    return (
        resource("volume", lambda conn, call, rule: owned_volume(conn, call, call.params["volume_id"], rule),
                 "volume:{verb}_volume_metadata"),
        resource("snapshot", lambda conn, call, rule: owned_snapshot(conn, call, call.params["snapshot_id"], rule),
                 "volume:{verb}_snapshot_metadata"),
    )  # fmt: skip


def _handlers(noun: Kind, owner: Owner) -> dict[str, Handler]:
    def mine(conn: Connection, call: Call) -> str:
        assert call.route.policy is not None
        return str(owner(conn, call, call.route.policy).id)

    async def everything(call: Call) -> Reply:
        found = await call.services.db.read(lambda conn: metadata.read(conn, noun, mine(conn, call)))
        return _tagged(call, found, {"metadata": found})

    async def one(call: Call) -> Reply:
        def read(conn: Connection) -> tuple[str, dict[str, str]]:
            owner_id = mine(conn, call)
            return owner_id, metadata.read(conn, noun, owner_id)

        owner_id, found = await call.services.db.read(read)
        key = call.params["key"]
        if key not in found:
            raise NoSuchKey(noun=noun.capitalize(), id=owner_id, key=key[:255])
        return _tagged(call, found, {"meta": {key: found[key]}})

    async def write(call: Call, values: dict[str, str], *, keep: bool) -> dict[str, str]:
        def change(conn: Connection) -> dict[str, str]:
            owner_id = mine(conn, call)
            _unchanged(call, conn, noun, owner_id)
            return (metadata.merge if keep else metadata.replace)(conn, noun, owner_id, values)

        return await call.services.db.write(change)

    async def merge(call: Call) -> Reply:
        found = await write(call, call.valid(_body(noun)).metadata, keep=True)
        return _tagged(call, found, {"metadata": found})

    async def replace(call: Call) -> Reply:
        found = await write(call, call.valid(_body(noun)).metadata, keep=False)
        return _tagged(call, found, {"metadata": found})

    async def put_one(call: Call) -> Reply:
        values, key = call.valid(MetaBody).meta, call.params["key"]
        if key not in values:
            raise BadRequest(reason="Request body and URI mismatch")
        if len(values) > 1:
            raise BadRequest(reason="Request body contains too many items")
        found = await write(call, values, keep=True)
        return _tagged(call, found, {"meta": values})

    async def remove(call: Call) -> None:
        key = call.params["key"]

        def change(conn: Connection) -> None:
            owner_id = mine(conn, call)
            _unchanged(call, conn, noun, owner_id)
            if not metadata.remove(conn, noun, owner_id, key):
                raise NoSuchKey(noun=noun.capitalize(), id=owner_id, key=key[:255])

        await call.services.db.write(change)

    return {"all": everything, "one": one, "merge": merge, "replace": replace, "put": put_one, "remove": remove}


def _tagged(call: Call, found: dict[str, str], body: dict[str, Any]) -> Reply:
    return Reply(body, headers={"Etag": tag(found)} if call.version >= _ETAG_SINCE else {})


def _unchanged(call: Call, conn: Connection, noun: Kind, owner_id: str) -> None:
    wanted = ",".join(call.request.headers.getall("If-Match", []))
    if call.version < _ETAG_SINCE or not wanted or wanted.strip() == "*":
        return
    if tag(metadata.read(conn, noun, owner_id)) not in _strong(wanted):
        raise MetadataChanged


def _strong(tags: str) -> set[str]:
    """Those of a list of tags that can be compared (RFC 9110): weak ones never match. Clients leave the quotes out."""
    found = _TAG.finditer(tags)
    return {one["quoted"] if one["quoted"] is not None else one["bare"] for one in found if one["weak"] is None}
