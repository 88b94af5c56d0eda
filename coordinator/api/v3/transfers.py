"""Transfers: a volume is offered, and another project takes it up with the key.

`/os-volume-transfer` is the older name; `/volume-transfers` (3.55) takes the snapshots along unless told otherwise.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from sqlalchemy import Connection, Row

from agent.base.errors import NotFound
from coordinator.api.acting import changed, own_project, owned_volume
from coordinator.api.call import Call
from coordinator.api.conditions import exact, ids, like
from coordinator.api.fields import Answer, Body, Boolean, Hidden, Name, Since, Time, Uuid, stamp
from coordinator.api.lists import Listing, ask
from coordinator.api.route import Resource, Route, delete, get, post
from coordinator.api.v3.volume_view import Link
from coordinator.keys.store import KeyStore
from coordinator.operations import transfer_volume
from coordinator.operations.transfer_volume import Taker
from coordinator.state import transfers as state
from coordinator.state import volumes
from coordinator.state.paging import Page
from coordinator.state.tables.transfers import transfers as table

_SNAPSHOTS, _HISTORY, _PAGES, _ENCRYPTED = 55, 57, 59, 70
_OLDEST_FIRST = (("created_at", False), ("id", False))
TRANSFERS = Listing(
    "transfer",
    {
        "name": exact(table.c.name), "name~": like(table.c.name), "volume_id": exact(table.c.volume_id),
        "id": ids(table.c.id),
    },
    {name: name for name in ("id", "name", "volume_id", "created_at", "updated_at")} | {"display_name": "name"},
    "transfers_links",
    open=True,
)  # fmt: skip


class NewTransfer(Body):
    volume_id: Uuid
    name: Name | None = None
    no_snapshots: Annotated[Boolean, Since(_SNAPSHOTS)] = False


class AcceptTransfer(Body):
    unknown_refused_from: ClassVar[int] = 0
    auth_key: Annotated[str, Hidden(), Field(min_length=1, max_length=255)]


class TransferSummary(Answer):
    id: str
    volume_id: str
    name: str | None
    links: list[Link]


class TransferAnswer(TransferSummary):
    """`auth_key` comes once, with the answer to the one who made the offer."""

    created_at: Time
    auth_key: str | None = None
    no_snapshots: Annotated[bool, Since(_SNAPSHOTS)] = False
    source_project_id: Annotated[str | None, Since(_HISTORY)] = None
    destination_project_id: Annotated[str | None, Since(_HISTORY)] = None
    accepted: Annotated[bool, Since(_HISTORY)] = False


class TransferList(Answer):
    transfers: list[TransferSummary]
    transfers_links: list[Link] | None = None


class TransferDetails(Answer):
    transfers: list[TransferAnswer]
    transfers_links: list[Link] | None = None


def resource() -> Resource:
    """The routes, under both names."""
    routes = (*_routes("/os-volume-transfer", 0), *_routes("/volume-transfers", _SNAPSHOTS))
    return Resource("transfers", "Transfers of volumes to other projects.", routes)


def _routes(base: str, since: int) -> tuple[Route, ...]:
    one = f"{base}/{{transfer_id}}"
    return (
        post(base, _create, "volume:create_transfer", "Offer a volume; the answer holds the key.", body=NewTransfer,
             body_key="transfer", answer=TransferAnswer, answer_key="transfer", status=202, since=since),
        get(base, _listed, "volume:get_all_transfers", "List transfers.", answer=TransferList,
            **TRANSFERS.described, since=since),
        get(f"{base}/detail", _listed_in_detail, "volume:get_all_transfers", "List transfers in detail.",
            answer=TransferDetails, **TRANSFERS.described, since=since),
        get(one, _show, "volume:get_transfer", "Show a transfer.", answer=TransferAnswer, answer_key="transfer",
            since=since),
        delete(one, _delete, "volume:delete_transfer", "Take an offer back.", since=since),
        post(f"{one}/accept", _accept, "volume:accept_transfer", "Take an offer up, with its key.",
             body=AcceptTransfer, body_key="accept", answer=TransferSummary, answer_key="transfer", status=202,
             since=since),
    )  # fmt: skip


def _summary(call: Call, row: Row[Any]) -> dict[str, Any]:
    base = call.route.path.split("/")[1]
    links = [
        {"rel": "self", "href": call.link(f"{base}/{row.id}")},
        {"rel": "bookmark", "href": f"{call.base_url}/{base}/{row.id}"},
    ]
    return {"id": row.id, "volume_id": row.volume_id, "name": row.name, "links": links}


def _detail(call: Call, row: Row[Any]) -> dict[str, Any]:
    return {
        **_summary(call, row),
        "created_at": stamp(row.created_at),
        "no_snapshots": row.no_snapshots,
        "source_project_id": row.source_project_id,
        "destination_project_id": row.destination_project_id,
        "accepted": row.accepted,
    }


async def _create(call: Call) -> dict[str, Any]:
    given = call.valid(NewTransfer)

    def make(conn: Connection) -> tuple[Row[Any], str]:
        volume = owned_volume(conn, call, given.volume_id, "volume:create_transfer")
        encrypted = call.version >= _ENCRYPTED
        # Before 3.55 nobody spoke of snapshots: they stayed with the giver.
        stay = given.no_snapshots or call.version < _SNAPSHOTS
        changed(conn, call, "volume", volume, "transfer_create.start")
        made = transfer_volume.offer(conn, volume, given.name, no_snapshots=stay, encrypted=encrypted)
        changed(conn, call, "volume", volume, "transfer_create.end")
        return made

    row, key = await call.services.db.write(make)
    return {**_detail(call, row), "auth_key": key}


async def _listed(call: Call) -> dict[str, Any]:
    return await _list(call, with_details=False)


async def _listed_in_detail(call: Call) -> dict[str, Any]:
    return await _list(call, with_details=True)


async def _list(call: Call, *, with_details: bool) -> dict[str, Any]:
    view = _detail if with_details else _summary
    asked = ask(call, TRANSFERS)
    paged = call.version >= _PAGES
    page = asked.page if paged else Page(call.services.settings.max_limit, sorts=_OLDEST_FIRST)
    rows = await call.services.db.read(
        lambda conn: state.listing(conn, asked.project, asked.where, page) if page.limit else []
    )
    views = [view(call, row) for row in rows]
    return asked.answer(call, "transfers", views) if paged else {"transfers": views}


def _owned(conn: Connection, call: Call, rule: str) -> Row[Any]:
    """The offer, for whom the volume belongs to; others do not find it."""
    row = state.get(conn, call.params["transfer_id"])
    if not call.context.is_admin and row.source_project_id != call.context.project_id:
        raise NotFound(noun="Transfer", id=row.id)
    call.require(rule, {"project_id": row.source_project_id, "user_id": None})
    return row


async def _show(call: Call) -> dict[str, Any]:
    row = await call.services.db.read(lambda conn: _owned(conn, call, "volume:get_transfer"))
    return _detail(call, row)


async def _delete(call: Call) -> None:
    def withdraw(conn: Connection) -> None:
        row = _owned(conn, call, "volume:delete_transfer")
        changed(conn, call, "volume", volumes.get(conn, row.volume_id), "transfer_delete.start")
        transfer_volume.withdraw(conn, row)
        changed(conn, call, "volume", volumes.get(conn, row.volume_id), "transfer_delete.end")

    await call.services.db.write(withdraw)


async def _accept(call: Call) -> dict[str, Any]:
    key, keys = call.valid(AcceptTransfer).auth_key, call.services.get(KeyStore)
    taker = Taker(own_project(call), call.context.user_id)

    def take(conn: Connection) -> Row[Any]:
        row = state.get(conn, call.params["transfer_id"])
        volume = volumes.get(conn, row.volume_id)
        if volume.encryption_key_id is not None and call.version < _ENCRYPTED:
            raise transfer_volume.EncryptedNotYet
        changed(conn, call, "volume", volume, "transfer_accept.start")
        transfer_volume.take(conn, row, key, taker, keys)
        changed(conn, call, "volume", volumes.get(conn, row.volume_id), "transfer_accept.end")
        return row

    return _summary(call, await call.services.db.write(take))
