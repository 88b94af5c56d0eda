"""Volume types."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection, Row, Table, exists, false, or_, select

from agent.base.errors import NotFound
from coordinator.api.call import Call
from coordinator.api.conditions import exact, ids, pairs_condition, parsed
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Answer, Body, Boolean, Metadata, RequiredName, SinceOurs, SpecKey, Text
from coordinator.api.lists import Listing, ask
from coordinator.api.route import Resource, delete, get, post, put
from coordinator.api.v3.spec_rules import check_store, check_together
from coordinator.api.v3.type_events import type_changed
from coordinator.state import default_types, metadata
from coordinator.state import types as state
from coordinator.state.paging import page_of
from coordinator.state.tables.types import type_access, type_extra_specs, type_metadata, volume_types

PUBLIC_SPECS = frozenset({"multiattach", "RESKEY:availability_zones", "replication_enabled"})
"""Extra specs that every user may see."""
_PUBLIC = "os-volume-type-access:is_public"
_SORTED = ("id", "name", "description", "is_public", "created_at", "updated_at")
TYPES = Listing(
    "volume_type",
    {"id": ids(volume_types.c.id), **{name: exact(volume_types.c[name]) for name in ("name", "description")}},
    {name: name for name in _SORTED},
    "volume_type_links",
    own=("is_public", "extra_specs", "metadata"),
    own_since={"extra_specs": 52},
    more_links=("volume_types_links",),
)
_FILTERS_SINCE = 52
_METADATA_SINCE = 1
"""The `brickyard 1.N` from which types have metadata that users see."""
Specs = dict[SpecKey, Annotated[str, Field(max_length=255)]]


class CreateType(Body):
    name: RequiredName
    description: Text | None = None
    extra_specs: Specs | None = None
    is_public: Boolean = Field(True, alias=_PUBLIC)
    metadata: Annotated[Metadata | None, SinceOurs(_METADATA_SINCE)] = None


class UpdateType(Body):
    name: RequiredName | None = None
    description: Text | None = None
    is_public: Boolean | None = None


class TypeAnswer(Answer):
    id: str
    name: str
    description: str | None
    is_public: bool
    access: bool | None = Field(None, alias=_PUBLIC)
    extra_specs: dict[str, str] | None = None
    qos_specs_id: str | None = None
    metadata: dict[str, str] | None = None


class TypesAnswer(Answer):
    volume_types: list[TypeAnswer]
    volume_type_links: list[dict[str, str]] | None = None
    volume_types_links: list[dict[str, str]] | None = None


def types() -> Resource:
    """Types themselves; their extra specs, access and encryption stand beside this module."""
    one = "/types/{volume_type_id}"
    answer: dict[str, Any] = {"answer": TypeAnswer, "answer_key": "volume_type"}
    return Resource(
        "types",
        "Volume types.",
        (
            get("/types", _list, "volume_extension:type_get_all", "List volume types.", answer=TypesAnswer,
                **TYPES.described),
            post("/types", _create, "volume_extension:type_create", "Create a volume type.", body=CreateType,
                 body_key="volume_type", **answer),
            get("/types/default", _default, "volume_extension:type_get", "Show the default volume type.", **answer),
            get(one, _show, "volume_extension:type_get", "Show a volume type.", **answer),
            put(one, _update, "volume_extension:type_update", "Change a volume type.", body=UpdateType,
                body_key="volume_type", **answer),
            delete(one, _delete, "volume_extension:type_delete", "Delete a volume type."),
        ),
    )  # fmt: skip


def visible_to(call: Call) -> str | None:
    """The project whose eyes count; None (an administrator) sees private types too."""
    return None if call.context.is_admin else call.context.project_id


def all_specs_shown(call: Call) -> bool:
    """Whether the caller sees every extra spec, not only those of use to users."""
    return call.may("volume_extension:types_extra_specs:read_sensitive")


def shown_specs(call: Call, specs: dict[str, str]) -> dict[str, str]:
    """The extra specs that the caller may see."""
    return specs if all_specs_shown(call) else {key: value for key, value in specs.items() if key in PUBLIC_SPECS}


def view(call: Call, row: Row[Any], specs: dict[str, str], words: dict[str, str]) -> dict[str, Any]:
    """How a type looks to the caller; `words` is its metadata."""
    made = {
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "is_public": row.is_public,
    }
    if call.may("volume_extension:volume_type_access"):
        made[_PUBLIC] = row.is_public
    if call.may("volume_extension:access_types_extra_specs"):
        made["extra_specs"] = shown_specs(call, specs)
    if call.may("volume_extension:access_types_qos_specs_id"):
        made["qos_specs_id"] = row.qos_specs_id
    if call.brickyard >= _METADATA_SINCE:
        made["metadata"] = words
    return made


def default_type(conn: Connection, project_id: str, name: str) -> Row[Any]:
    """The type that volumes of the project get whose creator names none (`name`: the site's); raises NotFound."""
    found = default_types.effective(conn, project_id, name)
    if found is None:
        raise NotFound(noun="Default volume type", id=name)
    return found


async def _list(call: Call) -> dict[str, Any]:
    asked = ask(call, TYPES, lenient=call.version < _FILTERS_SINCE and not call.context.is_admin)
    query = select(volume_types).where(~volume_types.c.deleted, *asked.where)
    among = None
    if call.context.is_admin:
        wanted = call.query.get("is_public", "none").lower()
        if wanted not in {"none", ""}:
            query = query.where(volume_types.c.is_public == _truth(wanted))
    else:
        among = or_(volume_types.c.is_public, _granted(call.context.project_id))
        query = query.where(among)
    if call.version >= _FILTERS_SINCE and "extra_specs" in call.query:
        query = _with_specs(call, query, call.query["extra_specs"])
    if call.brickyard >= _METADATA_SINCE and "metadata" in call.query:
        query = query.where(
            pairs_condition("metadata", call.query["metadata"], type_metadata, "volume_type_id", volume_types.c.id)
        )

    def read(conn: Connection) -> list[dict[str, Any]]:
        found = page_of(conn, query, volume_types, asked.page, among) if asked.page.limit else []
        ids = [row.id for row in found]
        specs = _pairs_of(conn, type_extra_specs, ids)
        words = _pairs_of(conn, type_metadata, ids) if call.brickyard >= _METADATA_SINCE else {}
        return [view(call, row, specs.get(row.id, {}), words.get(row.id, {})) for row in found]

    return asked.answer(call, "volume_types", await call.services.db.read(read))


def _granted(project_id: str) -> Any:
    table = type_access
    return exists(
        select(table.c.project_id).where(table.c.volume_type_id == volume_types.c.id, table.c.project_id == project_id)
    )


def _with_specs(call: Call, query: Any, text: str) -> Any:
    """Types that have all these extra specs (`{'key': 'value'}`); zones match by list element.

    A key that the caller can not see matches nothing, whatever its value is.
    """
    wanted = parsed(text)
    if not isinstance(wanted, dict) or not all(isinstance(part, str) for pair in wanted.items() for part in pair):
        raise BadRequest(reason="Could not evaluate the extra_specs filter; write {'key': 'value'}.")
    table = type_extra_specs
    if not all_specs_shown(call) and not PUBLIC_SPECS.issuperset(wanted):
        return query.where(false())
    for key, value in wanted.items():
        match = table.c.value == value
        if key == "RESKEY:availability_zones":
            listed = "," + _without_blanks(table.c.value) + ","
            match = listed.contains(f",{value},", autoescape=True)
        query = query.where(
            exists(select(table.c.key).where(table.c.volume_type_id == volume_types.c.id, table.c.key == key, match))
        )
    return query


def _without_blanks(column: Any) -> Any:
    from sqlalchemy import func

    return func.replace(column, " ", "")


def _truth(text: str) -> bool:
    if text in {"true", "1", "t", "yes", "on"}:
        return True
    if text in {"false", "0", "f", "no", "off"}:
        return False
    raise BadRequest(reason=f"Invalid is_public filter [{text[:64]}]")


def _pairs_of(conn: Connection, table: Table, ids: list[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for row in conn.execute(select(table).where(table.c.volume_type_id.in_(ids))):
        found.setdefault(row.volume_type_id, {})[row.key] = row.value
    return found


async def _viewed(call: Call, find: Any) -> dict[str, Any]:
    def read(conn: Connection) -> dict[str, Any]:
        return _view_of(call, conn, find(conn))

    return await call.services.db.read(read)


def _view_of(call: Call, conn: Connection, row: Row[Any]) -> dict[str, Any]:
    words = metadata.read(conn, "type", row.id) if call.brickyard >= _METADATA_SINCE else {}
    return view(call, row, state.extra_specs(conn, row.id), words)


async def _show(call: Call) -> dict[str, Any]:
    return await _viewed(call, lambda conn: state.get(conn, call.params["volume_type_id"], visible_to(call)))


async def _default(call: Call) -> dict[str, Any]:
    name = call.services.settings.default_volume_type
    return await _viewed(call, lambda conn: default_type(conn, call.context.project_id, name))


async def _create(call: Call) -> dict[str, Any]:
    given = call.valid(CreateType)
    specs = dict(given.extra_specs or {})
    check_together(specs)
    await check_store(call, specs)

    def create(conn: Connection) -> dict[str, Any]:
        row = state.create(conn, given.name, given.description, is_public=given.is_public)
        state.put_extra_specs(conn, row.id, specs)
        metadata.merge(conn, "type", row.id, given.metadata or {})
        type_changed(conn, call, "create", row)
        return _written(call, conn, row)

    return await call.services.db.write(create)


async def _update(call: Call) -> dict[str, Any]:
    given = call.valid(UpdateType).model_dump(exclude_unset=True)
    values = {name: value for name, value in given.items() if value is not None}
    if not values:
        raise BadRequest(reason="Specify volume type name, description, is_public or a combination thereof.")
    type_id, default = call.params["volume_type_id"], call.services.settings.default_volume_type

    def change(conn: Connection) -> dict[str, Any]:
        is_default = state.get(conn, type_id).name == default
        if values.get("is_public") is False:
            if is_default:
                raise BadRequest(reason=f"Volume type {default} is the default and can not be private.")
            default_types.check_hiding(conn, type_id)
        row = state.change(conn, type_id, **values)
        if is_default and row.name != default:
            type_changed(conn, call, "create", _new_default(conn, default))
        type_changed(conn, call, "update", row)
        told = _written(call, conn, row)
        told.pop(_PUBLIC, None)  # which Cinder tells in every answer but this one
        return told

    return await call.services.db.write(change)


def _written(call: Call, conn: Connection, row: Row[Any]) -> dict[str, Any]:
    """As Cinder answers to a change: without the QoS specs, which strict clients know of shows alone."""
    return {name: value for name, value in _view_of(call, conn, row).items() if name != "qos_specs_id"}


def _new_default(conn: Connection, name: str) -> Row[Any]:
    """The default has got another name: no project is to be without one."""
    try:
        return state.ensure_default(conn, name)
    except NotFound:
        raise BadRequest(
            reason=f"Volume type {name} is the configured default and can not be renamed; configure another one first "
            "(api.default_volume_type)."
        ) from None


async def _delete(call: Call) -> None:
    type_id, default = call.params["volume_type_id"], call.services.settings.default_volume_type

    def remove(conn: Connection) -> None:
        row = state.get(conn, type_id)
        if row.name == default:
            raise BadRequest(reason=f"Volume type {default} is the configured default and can not be deleted.")
        if projects := default_types.projects_of(conn, type_id):
            raise BadRequest(reason=f"Volume type {type_id} is the default of project {projects[0]}; change it first.")
        type_changed(conn, call, "delete", row)
        state.remove(conn, type_id)

    await call.services.db.write(remove)
