"""Volumes: create, list, show, change, delete."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, StringConstraints
from sqlalchemy import Connection, Row, select

from agent.base.errors import NotFound
from agent.base.ids import is_id
from coordinator.api.acting import changed, end_work, owned_volume, requester, scope, target
from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.fields import (
    Answer,
    Body,
    Boolean,
    Gib,
    Metadata,
    Name,
    Since,
    SinceOurs,
    Text,
    Uuid,
    distinct,
)
from coordinator.api.lists import ask
from coordinator.api.paging import flag
from coordinator.api.route import Resource, delete, get, post, put
from coordinator.api.v3.server_images import from_its_snapshot
from coordinator.api.v3.volume_filters import VOLUMES
from coordinator.api.v3.volume_view import (
    Link,
    VolumeAnswer,
    VolumeSummary,
    as_changed,
    detailed,
    summarized,
    viewer,
)
from coordinator.images.catalog import Caller
from coordinator.images.client import ImageClient, LocalImages
from coordinator.images.errors import NoSuchImage
from coordinator.images.info import ImageInfo
from coordinator.keys.store import KeyStore
from coordinator.operations import hints
from coordinator.operations.cache_keeper import CacheKeeper
from coordinator.operations.delete_cascade import accept_cascade
from coordinator.operations.delete_volume import accept_delete
from coordinator.operations.engine import Engine
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.operations.signatures import Asker, Signatures
from coordinator.state import default_types, metadata, snapshots, types, volume_lists, volumes
from coordinator.state.operations import Operation
from coordinator.state.tables.fleet import hosts
from coordinator.state.volume_lists import Detail

_UNSUPPORTED = ("consistencygroup_id", "group_id", "backup_id")
Trusted = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=255, strict=True)], ...],
    Field(max_length=50, json_schema_extra={"uniqueItems": True}),
    AfterValidator(distinct),
]
"""Ids of certificates, none twice."""


class CreateVolume(Body):
    unknown_refused_from: ClassVar[int] = 53
    beside: ClassVar[tuple[str, ...]] = ("OS-SCH-HNT:scheduler_hints",)
    scheduler_hints: dict[str, Any] | None = Field(None, alias="OS-SCH-HNT:scheduler_hints")
    size: Gib | None = None
    name: Name | None = None
    display_name: Name | None = None
    description: Text | None = None
    display_description: Text | None = None
    volume_type: Name | None = None
    metadata: Metadata | None = None
    snapshot_id: Uuid | None = None
    source_volid: Uuid | None = None
    consistencygroup_id: Uuid | None = None
    availability_zone: Name | None = None
    multiattach: Boolean | None = None
    image_id: Name | None = None
    image_ref: Name | None = Field(None, alias="imageRef")
    group_id: Annotated[Uuid | None, Since(13)] = None
    backup_id: Annotated[Uuid | None, Since(47)] = None
    trusted_image_certificates: Annotated[Trusted | None, SinceOurs(1)] = None


class UpdateVolume(Body):
    unknown_refused_from: ClassVar[int] = 53
    name: Name | None = None
    display_name: Name | None = None
    description: Text | None = None
    display_description: Text | None = None
    metadata: Metadata | None = None


class VolumeList(Answer):
    volumes: list[VolumeSummary]
    volumes_links: list[Link] = Field(default_factory=list)
    count: Annotated[int, Since(45)] = 0


class VolumeDetails(Answer):
    volumes: list[VolumeAnswer]
    volumes_links: list[Link] = Field(default_factory=list)
    count: Annotated[int, Since(45)] = 0


class SummaryAnswer(Answer):
    total_count: int
    total_size: int
    metadata: Annotated[dict[str, list[str]], Since(36)] = Field(default_factory=dict)


async def create(call: Call) -> dict[str, Any]:
    """Everything is checked before anything is made; answered when it is durable."""
    body = call.valid(CreateVolume)
    _checked(body)
    asked = NewVolume(
        size=body.size,
        name=body.name if body.name is not None else body.display_name,
        description=body.description if body.description is not None else body.display_description,
        availability_zone=body.availability_zone,
        snapshot_id=body.snapshot_id,
        source_volid=body.source_volid,
        image=await image_of(call, body.image_ref or body.image_id, body.trusted_image_certificates),
        metadata=body.metadata or {},
        hints=hints.checked(body.scheduler_hints or {}),
    )
    wanted = await from_its_snapshot(call, asked)
    keys, who, type_name = call.services.get(KeyStore), requester(call), body.volume_type
    default = call.services.settings.default_volume_type

    def accept(conn: Connection) -> tuple[Operation, Detail]:
        if wanted.availability_zone is not None:
            _check_zone(conn, wanted.availability_zone)
        of_type = _type(conn, wanted, type_name, default, who.project_id)
        chosen = replace(wanted, volume_type_id=of_type.id if of_type is not None else None)
        operation, row = accept_volume(conn, who, keys, chosen)
        if row.multiattach:
            call.require("volume:multiattach", target(row))
        if of_type is not None or row.volume_type_id is None:
            return operation, Detail(row, of_type.name if of_type is not None else None, wanted.metadata)
        names = volume_lists.type_names(conn, {row.volume_type_id})
        return operation, Detail(row, names.get(row.volume_type_id), wanted.metadata)

    company = wanted.company(who.project_id)
    _, made = await call.services.get(Engine).submit(accept, together=company)
    return as_changed(call, made)


def _checked(body: CreateVolume) -> None:
    if body.multiattach:
        raise BadRequest(
            reason="multiattach parameter has been removed. The default behavior is to use multiattach enabled volume "
            "types. Contact your administrator to create a multiattach enabled volume type and use it to create "
            "multiattach volumes."
        )
    for name in _UNSUPPORTED:
        if getattr(body, name) is not None:
            raise BadRequest(reason=f"{name} is not supported by this release.")
    sources = [
        name
        for name, value in (
            ("source_volid", body.source_volid),
            ("snapshot_id", body.snapshot_id),
            ("imageRef", body.image_ref or body.image_id),
        )
        if value is not None and value != ""
    ]
    if len(sources) > 1:
        raise BadRequest(reason=f"Only one source can be given for a volume, not {' and '.join(sources)}.")


async def image_of(call: Call, reference: str | None, trusted: tuple[str, ...] | None = None) -> ImageInfo | None:
    """The image named by its id, or by an address that ends with it, and what is to be proven of it."""
    if not reference:
        if trusted:
            raise BadRequest(reason="trusted_image_certificates are for volumes made of an image.")
        return None
    call.require("volume:create_from_image")
    image_id = reference.rsplit("/", 1)[-1].lower()
    if not is_id(image_id):
        raise BadRequest(reason="Invalid image identifier or unable to access requested image.")
    caller = Caller(call.context.project_id, call.context.is_admin)
    client = call.services.find(ImageClient) or LocalImages(call.services.db)
    token = call.request.headers.get("X-Auth-Token")
    try:
        found = await client.for_volume(image_id, caller, token)
    except NoSuchImage:
        _doubt(call, image_id)
        raise
    if found.status != "active":
        _doubt(call, image_id)
    signatures = call.services.find(Signatures)
    if signatures is None:
        return found
    return await signatures.asked(found, Asker(call.context.project_id, token, trusted))


def _doubt(call: Call, image_id: str) -> None:
    """It may be gone for everybody: nothing of it is to stay in a cache then."""
    keeper = call.services.find(CacheKeeper)
    if keeper is not None:
        keeper.doubt(image_id)


def _type(conn: Connection, wanted: NewVolume, name: str | None, default: str, project_id: str) -> Row[Any] | None:
    """The type asked for, else the default one of project or site; what has a source gets the type of its source."""
    if name:
        return types.find(conn, name, project_id)
    if wanted.snapshot_id is not None or wanted.source_volid is not None:
        return None
    return default_types.needed(conn, project_id, default)


def _check_zone(conn: Connection, zone: str) -> None:
    if conn.execute(select(hosts.c.id).where(hosts.c.availability_zone == zone).limit(1)).first() is None:
        raise BadRequest(reason=f"Availability zone '{zone}' is invalid.")


async def listed(call: Call) -> dict[str, Any]:
    return await _list(call, with_details=False)


async def listed_in_detail(call: Call) -> dict[str, Any]:
    return await _list(call, with_details=True)


async def _list(call: Call, *, with_details: bool) -> dict[str, Any]:
    asked = ask(call, VOLUMES)
    mine, where, page = asked.project, asked.where, asked.page

    def read(conn: Connection) -> tuple[list[dict[str, Any]], int]:
        views: list[dict[str, Any]] = []
        if page.limit and with_details:
            views = list(map(viewer(call), volume_lists.details(conn, mine, where, page)))
        elif page.limit:
            views = [summarized(call, row) for row in volume_lists.listing(conn, mine, where, page)]
        return views, volume_lists.count(conn, mine, where) if asked.counting else 0

    return asked.answer(call, "volumes", *await call.services.db.read(read))


async def summary(call: Call) -> dict[str, Any]:
    asked = ask(call, VOLUMES, lenient=True)
    found = await call.services.db.read(
        lambda conn: volume_lists.summary(conn, asked.project, asked.where, with_metadata=call.version >= 36)
    )
    return {"total_count": found.count, "total_size": found.size, "metadata": dict(found.metadata)}


async def show(call: Call) -> dict[str, Any]:
    volume_id = call.params["volume_id"]

    found = await call.services.db.glance(lambda conn: volume_lists.detail(conn, volume_id))
    mine = scope(call)
    if mine is not None and found.row.project_id != mine:
        raise NotFound(noun="Volume", id=volume_id)
    call.require("volume:get", target(found.row))
    return detailed(call, found)


def shown(conn: Connection, row: Row[Any]) -> Detail:
    """A row with all that belongs to it, as it is now."""
    return volume_lists.detail(conn, row.id)


async def update(call: Call) -> dict[str, Any]:
    body = call.valid(UpdateVolume)
    given = body.model_fields_set
    if not given and call.version >= 53:
        raise BadRequest(
            reason="Invalid input for field/attribute volume. Value: {}. {} does not have enough properties"
        )
    values: dict[str, Any] = {}
    for name in ("name", "description"):
        for alias in (f"display_{name}", name):
            if alias in given:
                values[name] = getattr(body, alias)

    def change(conn: Connection) -> Detail:
        row = owned_volume(conn, call, call.params["volume_id"], "volume:update")
        if values:
            volumes.set_values(conn, row.id, **values)
        if body.metadata is not None:
            metadata.replace(conn, "volume", row.id, body.metadata)
        changed(conn, call, "volume", row, "update_volume.end")
        return shown(conn, volumes.get(conn, row.id))

    return as_changed(call, await call.services.db.write(change))


async def remove(call: Call) -> None:
    """`cascade` takes snapshots along, else any refuses it. `force` (3.23) passes over the status."""
    force = call.version >= 23 and flag(call, "force")
    cascade = flag(call, "cascade")
    await removed(call, force=force, cascade=cascade, rule="volume:force_delete" if force else "volume:delete")


async def removed(call: Call, *, force: bool, rule: str, cascade: bool = False) -> None:
    """Accept the deletion of the volume in the path; `force` ends unfinished work on it first."""

    def mine(conn: Connection) -> Row[Any]:
        row = volumes.get(conn, call.params["volume_id"], scope(call))
        call.require(rule, target(row))
        return row

    def accept(conn: Connection) -> tuple[Operation, None]:
        row = mine(conn)
        who = requester(call, row.project_id)
        if cascade:
            return accept_cascade(conn, who, row.id, force=force, admin=call.context.is_admin), None
        return accept_delete(conn, who, row.id, force=force), None

    def busy(conn: Connection) -> list[str]:
        row = mine(conn)
        return [*(item.id for item in snapshots.of_volume(conn, row.id) if cascade), row.id]

    for resource_id in await call.services.db.read(busy) if force else ():
        await end_work(call, resource_id)

    await call.services.get(Engine).submit(accept)


def resource() -> Resource:
    """The routes."""
    return Resource(
        "volumes",
        "Volumes: create, list, show, change, delete.",
        (
            post("/volumes", create, "volume:create", "Create a volume, empty or from an image, snapshot or volume.",
                 body=CreateVolume, body_key="volume", answer=VolumeAnswer, answer_key="volume", status=202),
            get("/volumes", listed, "volume:get_all", "List volumes.", answer=VolumeList, **VOLUMES.described),
            get("/volumes/detail", listed_in_detail, "volume:get_all", "List volumes with all their fields.",
                answer=VolumeDetails, **VOLUMES.described),
            get("/volumes/summary", summary, "volume:get_all", "How many volumes, of what size in all.",
                answer=SummaryAnswer, answer_key="volume-summary", since=12, **VOLUMES.described),
            get("/volumes/{volume_id}", show, "volume:get", "Show a volume.", answer=VolumeAnswer,
                answer_key="volume"),
            put("/volumes/{volume_id}", update, "volume:update", "Change name, description or metadata.",
                body=UpdateVolume, body_key="volume", answer=VolumeAnswer, answer_key="volume"),
            delete("/volumes/{volume_id}", remove, "volume:delete", "Delete a volume.", query=("cascade", "force"),
                   query_since=(("force", 23),)),
        ),
    )  # fmt: skip
