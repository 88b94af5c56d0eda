"""User messages: why something a user asked for did not come about, and what to do."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, select

from coordinator.api.call import Call
from coordinator.api.conditions import exact
from coordinator.api.fields import Answer, Time
from coordinator.api.lists import Listing, ask
from coordinator.api.route import Resource, delete, get
from coordinator.state import messages as state
from coordinator.state.paging import Page, page_of
from coordinator.state.tables.messages import messages as table

_SORTED = ("id", "event_id", "resource_type", "resource_uuid", "request_id", "message_level", "created_at",
           "guaranteed_until")  # fmt: skip
_EXACT = ("event_id", "resource_type", "resource_uuid", "request_id", "message_level")
MESSAGES = Listing(
    "message", {name: exact(table.c[name]) for name in _EXACT}, {name: name for name in _SORTED}, "messages_links",
    early=_EXACT,
)  # fmt: skip


class MessageAnswer(Answer):
    id: str
    event_id: str
    user_message: str
    message_level: str
    created_at: Time
    guaranteed_until: Time
    request_id: str
    resource_type: str
    resource_uuid: str | None
    links: list[dict[str, str]]


class MessagesAnswer(Answer):
    messages: list[MessageAnswer]
    messages_links: list[dict[str, str]] | None = None


def messages() -> Resource:
    """From microversion 3.3; pages and filters from 3.5."""
    one = "/messages/{message_id}"
    return Resource(
        "messages",
        "User messages.",
        (
            get("/messages", _list, "message:get_all", "List messages.", answer=MessagesAnswer, since=3,
                **MESSAGES.described),
            get(one, _show, "message:get", "Show a message.", answer=MessageAnswer, answer_key="message", since=3),
            delete(one, _delete, "message:delete", "Delete a message.", status=204, since=3),
        ),
    )  # fmt: skip


def _view(call: Call, row: Row[Any]) -> dict[str, Any]:
    made = {name: row._mapping[name] for name in MessageAnswer.model_fields if name != "links"}
    made["links"] = [
        {"rel": "self", "href": call.link(f"messages/{row.id}")},
        {"rel": "bookmark", "href": f"{call.base_url}/messages/{row.id}"},
    ]
    return made


async def _list(call: Call) -> dict[str, Any]:
    among = table.c.project_id == call.context.project_id
    asked = ask(call, MESSAGES) if call.version >= 5 else None
    page = asked.page if asked is not None else Page(call.services.settings.max_limit)
    query = select(table).where(among, *(asked.where if asked is not None else ()))
    found = await call.services.db.read(lambda conn: page_of(conn, query, table, page, among) if page.limit else [])
    views = [_view(call, row) for row in found]
    return asked.answer(call, "messages", views) if asked is not None else {"messages": views}


def _project(call: Call) -> str | None:
    return None if call.context.is_admin else call.context.project_id


async def _show(call: Call) -> dict[str, Any]:
    row = await call.services.db.read(lambda conn: state.get(conn, call.params["message_id"], _project(call)))
    return _view(call, row)


async def _delete(call: Call) -> None:
    def remove(conn: Connection) -> None:
        state.remove(conn, state.get(conn, call.params["message_id"], _project(call)).id)

    await call.services.db.write(remove)
