"""QoS specs, and the volume types that carry them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from sqlalchemy import Connection

from coordinator.api.call import Call, Reply
from coordinator.api.conditions import exact, ids
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Answer, Body, RequiredName, SpecKey
from coordinator.api.lists import Listing, ask
from coordinator.api.paging import flag
from coordinator.api.route import Resource, delete, get, post, put
from coordinator.api.v3.type_events import qos_changed
from coordinator.state import qos as state
from coordinator.state import types
from coordinator.state.qos import QosSpecs
from coordinator.state.qos_limits import check
from coordinator.state.tables.qos import qos_specs as table

_OWN_KEYS = ("id", "name", "consumer")
Consumer = Literal["front-end", "back-end", "both"]


def _value(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Values = dict[SpecKey, Annotated[str, BeforeValidator(_value), Field(max_length=255)]]
QOS = Listing(
    "qos_specs",
    {"id": ids(table.c.id), "name": exact(table.c.name), "consumer": exact(table.c.consumer)},
    {name: name for name in ("id", "name", "consumer", "created_at", "updated_at")},
    "qos_specs_links",
)


class NewQos(Body):
    """Further keys are limits: whole numbers, or texts of up to 255 characters."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: Values
    name: RequiredName
    consumer: Consumer = "back-end"


class ChangedQos(Body):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: Values
    consumer: Consumer | None = None


class Keys(Body):
    keys: list[SpecKey] = Field(max_length=256)


class QosAnswer(Answer):
    id: str
    name: str
    consumer: str
    specs: dict[str, str]


class QosList(Answer):
    qos_specs: list[QosAnswer]
    qos_specs_links: list[dict[str, str]] | None = None


class QosShown(Answer):
    qos_specs: QosAnswer
    links: list[dict[str, str]]


class Association(Answer):
    association_type: str
    name: str
    id: str


class Associations(Answer):
    qos_associations: list[Association]


def resource() -> Resource:
    """The routes. That types are tied by GET is how clients do it."""
    one, rule = "/qos-specs/{qos_id}", "volume_extension:qos_specs_manage"
    return Resource(
        "qos",
        "QoS specs: limits that volume types carry.",
        (
            get("/qos-specs", _list, f"{rule}:get_all", "List QoS specs.", answer=QosList, **QOS.described),
            post("/qos-specs", _create, f"{rule}:create", "Create QoS specs.", body=NewQos, body_key="qos_specs",
                 answer=QosShown),
            get(one, _show, f"{rule}:get", "Show QoS specs.", answer=QosShown),
            put(one, _change, f"{rule}:update", "Set limits or the consumer.", body=ChangedQos, body_key="qos_specs"),
            delete(one, _delete, f"{rule}:delete", "Delete QoS specs; force takes them from their types.",
                   query=("force",)),
            put(f"{one}/delete_keys", _delete_keys, f"{rule}:delete", "Remove limits.", body=Keys, status=202),
            get(f"{one}/associations", _associations, f"{rule}:get_all", "List the types that carry them.",
                answer=Associations),
            get(f"{one}/associate", _tied(state.associate, "associate"), f"{rule}:update", "Let a type carry them.",
                query=("vol_type_id",), status=202),
            get(f"{one}/disassociate", _tied(state.disassociate, "disassociate"), f"{rule}:update",
                "Take them from a type.", query=("vol_type_id",), status=202),
            get(f"{one}/disassociate_all", _untie_all, f"{rule}:update", "Take them from all types.", status=202),
        ),
    )  # fmt: skip


def _view(found: QosSpecs) -> dict[str, Any]:
    return {"id": found.id, "name": found.name, "consumer": found.consumer, "specs": dict(found.specs)}


def _shown(call: Call, found: QosSpecs) -> dict[str, Any]:
    links = [
        {"rel": "self", "href": call.link(f"qos-specs/{found.id}")},
        {"rel": "bookmark", "href": f"{call.base_url}/qos-specs/{found.id}"},
    ]
    return {"qos_specs": _view(found), "links": links}


def _limits(given: NewQos | ChangedQos) -> dict[str, str]:
    found: dict[str, str] = dict(given.model_extra or {})
    for key in _OWN_KEYS:
        if key in found:
            raise BadRequest(reason=f"Invalid qos specs: {key} can not be set.")
    check(found)
    return found


async def _list(call: Call) -> dict[str, Any]:
    asked = ask(call, QOS)
    found = await call.services.db.read(
        lambda conn: state.listing(conn, asked.where, asked.page) if asked.page.limit else []
    )
    return asked.answer(call, "qos_specs", [_view(item) for item in found])


async def _create(call: Call) -> dict[str, Any]:
    given = call.valid(NewQos)
    limits = _limits(given)

    def create(conn: Connection) -> QosSpecs:
        made = state.create(conn, given.name, given.consumer, limits)
        qos_changed(conn, call, "create", made.id, {"specs": {**limits, "consumer": given.consumer}})
        return made

    return _shown(call, await call.services.db.write(create))


async def _show(call: Call) -> dict[str, Any]:
    return _shown(call, await call.services.db.read(lambda conn: state.get(conn, call.params["qos_id"])))


async def _change(call: Call) -> dict[str, Any]:
    given = call.valid(ChangedQos)
    limits, consumer = _limits(given), given.consumer
    given_values = {**limits, **({"consumer": consumer} if consumer is not None else {})}

    def change(conn: Connection) -> None:
        state.change(conn, call.params["qos_id"], consumer, limits)
        qos_changed(conn, call, "update", call.params["qos_id"], {"specs": given_values})

    await call.services.db.write(change)
    return {"qos_specs": given_values}


async def _delete(call: Call) -> None:
    force = flag(call, "force")

    def remove(conn: Connection) -> None:
        qos_changed(conn, call, "delete", call.params["qos_id"], {})
        state.remove(conn, call.params["qos_id"], force=force)

    await call.services.db.write(remove)


async def _delete_keys(call: Call) -> None:
    keys = call.valid(Keys).keys

    def remove(conn: Connection) -> None:
        state.remove_keys(conn, call.params["qos_id"], keys)
        qos_changed(conn, call, "delete_keys", call.params["qos_id"], {"keys": keys})

    await call.services.db.write(remove)


async def _associations(call: Call) -> dict[str, Any]:
    def read(conn: Connection) -> list[dict[str, str]]:
        state.get(conn, call.params["qos_id"])
        found = state.associations(conn, call.params["qos_id"])
        return [{"association_type": "volume_type", "name": row.name, "id": row.id} for row in found]

    return {"qos_associations": await call.services.db.read(read)}


def _tied(change: Callable[..., None], verb: str) -> Callable[[Call], Any]:
    async def tie(call: Call) -> Reply:
        type_id = call.query.get("vol_type_id")
        if not type_id:
            raise BadRequest(reason="Volume Type id must not be None.")

        def write(conn: Connection) -> None:
            change(conn, call.params["qos_id"], types.get(conn, type_id))
            qos_changed(conn, call, verb, call.params["qos_id"], {"type_id": type_id})

        await call.services.db.write(write)
        return Reply()

    return tie


async def _untie_all(call: Call) -> None:
    def untie(conn: Connection) -> None:
        state.disassociate_all(conn, call.params["qos_id"])
        qos_changed(conn, call, "disassociate_all", call.params["qos_id"], {})

    await call.services.db.write(untie)
