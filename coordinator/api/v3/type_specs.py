"""What belongs to a volume type: extra specs, access of projects, encryption."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from sqlalchemy import Connection, Row

from agent.base.errors import NotFound
from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.fields import Answer, Body, Integer, RequiredName, Text
from coordinator.api.route import Resource, action, delete, get, post, put
from coordinator.api.v3.spec_rules import check_store, check_together
from coordinator.api.v3.type_events import access_changed, encryption_changed, specs_changed
from coordinator.api.v3.types import Specs, shown_specs, visible_to
from coordinator.operations.encryption import columns
from coordinator.state import default_types
from coordinator.state import types as state

Provider = Literal[
    "luks", "luks1", "luks2", "nova.volume.encryptors.luks.LuksEncryptor", "nova.volume.encryptors.luks.Luks2Encryptor",
    "os_brick.encryptors.luks.LuksEncryptor", "LuksEncryptor",
]  # fmt: skip


class AddSpecs(Body):
    extra_specs: Specs = Field(min_length=1)


class OneSpec(Body):
    """`{KEY: VALUE}` with the key of the path."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: Specs


class Access(Body):
    project: RequiredName


class NewEncryption(Body):
    provider: Provider
    control_location: Literal["front-end", "back-end"] = "front-end"
    cipher: Text | None = None
    key_size: Annotated[Integer, Field(ge=128, le=1024)] | None = None
    encryption_id: str | None = None


class ChangedEncryption(Body):
    provider: Provider | None = None
    control_location: Literal["front-end", "back-end"] | None = None
    cipher: Text | None = None
    key_size: Annotated[Integer, Field(ge=128, le=1024)] | None = None

    @model_validator(mode="after")
    def _something(self) -> ChangedEncryption:
        if not self.model_fields_set:
            raise ValueError("{} does not have enough properties")
        return self


class EncryptionAnswer(Answer):
    volume_type_id: str
    encryption_id: str
    provider: str
    control_location: str
    cipher: str | None
    key_size: int | None


def type_specs() -> Resource:
    """Below `/types/{volume_type_id}`."""
    one = "/types/{volume_type_id}"
    specs, crypt = f"{one}/extra_specs", f"{one}/encryption"
    rule = "volume_extension:types_extra_specs"
    lock = "volume_extension:volume_type_encryption"
    access = "volume_extension:volume_type_access"
    return Resource(
        "type-specs",
        "Extra specs, access and encryption of volume types.",
        (
            get(specs, _specs, f"{rule}:index", "List the extra specs of a type."),
            post(specs, _add_specs, f"{rule}:create", "Set extra specs.", body=AddSpecs),
            get(f"{specs}/{{key}}", _spec, f"{rule}:show", "Show an extra spec."),
            put(f"{specs}/{{key}}", _set_spec, f"{rule}:update", "Set an extra spec.", body=OneSpec),
            delete(f"{specs}/{{key}}", _delete_spec, f"{rule}:delete", "Delete an extra spec."),
            get(f"{one}/os-volume-type-access", _access, f"{access}:get_all_for_type",
                "List the projects that may use a private type."),
            action(f"{one}/action", "addProjectAccess", _grant, f"{access}:addProjectAccess",
                   "Let a project use a private type.", body=Access),
            action(f"{one}/action", "removeProjectAccess", _revoke, f"{access}:removeProjectAccess",
                   "Take a private type from a project.", body=Access),
            get(crypt, _encryption, f"{lock}:get", "Show the encryption of a type (empty when it has none)."),
            post(crypt, _encrypt, f"{lock}:create", "Make volumes of a type encrypted.", body=NewEncryption,
                 body_key="encryption", answer=EncryptionAnswer, answer_key="encryption"),
            get(f"{crypt}/{{encryption_id}}", _encryption_item, f"{lock}:get", "Show one value of the encryption."),
            put(f"{crypt}/{{encryption_id}}", _change_encryption, f"{lock}:update", "Change the encryption.",
                body=ChangedEncryption, body_key="encryption"),
            delete(f"{crypt}/{{encryption_id}}", _decrypt, f"{lock}:delete", "Remove the encryption."),
        ),
    )  # fmt: skip


def _type_id(call: Call) -> str:
    return call.params["volume_type_id"]


async def _visible_specs(call: Call) -> dict[str, str]:
    def read(conn: Connection) -> dict[str, str]:
        state.get(conn, _type_id(call), visible_to(call))
        return state.extra_specs(conn, _type_id(call))

    return shown_specs(call, await call.services.db.read(read))


async def _specs(call: Call) -> dict[str, Any]:
    return {"extra_specs": await _visible_specs(call)}


async def _spec(call: Call) -> dict[str, Any]:
    specs, key = await _visible_specs(call), call.params["key"]
    if key not in specs:
        raise state.NoSuchSpec(type=_type_id(call), key=key[:255])
    return {key: specs[key]}


def _unused_specs(conn: Connection, type_id: str) -> None:
    """What volumes were placed by stays as long as they have it."""
    state.get(conn, type_id)
    if state.is_used(conn, type_id):
        raise state.SpecsInUse


async def _put_specs(call: Call, specs: dict[str, str], verb: str, told: dict[str, Any]) -> None:
    await check_store(call, specs)

    def write(conn: Connection) -> None:
        _unused_specs(conn, _type_id(call))
        check_together({**state.extra_specs(conn, _type_id(call)), **specs})
        state.put_extra_specs(conn, _type_id(call), specs)
        specs_changed(conn, call, verb, _type_id(call), told)

    await call.services.db.write(write)


async def _add_specs(call: Call) -> dict[str, Any]:
    specs = dict(call.valid(AddSpecs).extra_specs)
    await _put_specs(call, specs, "create", {"specs": specs})
    return {"extra_specs": specs}


async def _set_spec(call: Call) -> dict[str, Any]:
    given = dict(call.valid(OneSpec).model_extra or {})
    if list(given) != [call.params["key"]]:
        raise BadRequest(reason="Request body and URI mismatch: the body holds exactly the key of the address.")
    await _put_specs(call, given, "update", {"id": call.params["key"]})
    return given


async def _delete_spec(call: Call) -> None:
    def remove(conn: Connection) -> None:
        _unused_specs(conn, _type_id(call))
        state.remove_extra_spec(conn, _type_id(call), call.params["key"])
        specs_changed(conn, call, "delete", _type_id(call), {"id": call.params["key"]})

    await call.services.db.write(remove)


def _private(conn: Connection, type_id: str) -> None:
    if state.get(conn, type_id).is_public:
        raise NotFound(noun="Access list not available for public volume types. The access list of", id=type_id)


async def _access(call: Call) -> dict[str, Any]:
    def read(conn: Connection) -> list[str]:
        _private(conn, _type_id(call))
        return state.access(conn, _type_id(call))

    found = await call.services.db.read(read)
    return {"volume_type_access": [{"volume_type_id": _type_id(call), "project_id": project} for project in found]}


async def _grant(call: Call) -> None:
    def grant(conn: Connection) -> None:
        if state.get(conn, _type_id(call)).is_public:
            raise BadRequest(
                reason=f"Type access modification is not applicable to public volume type {_type_id(call)}."
            )
        state.grant(conn, _type_id(call), call.valid(Access).project)
        access_changed(conn, call, "add", _type_id(call), call.valid(Access).project)

    await call.services.db.write(grant)


async def _revoke(call: Call) -> None:
    def revoke(conn: Connection) -> None:
        state.get(conn, _type_id(call))
        default_types.check_revoking(conn, _type_id(call), call.valid(Access).project)
        state.revoke(conn, _type_id(call), call.valid(Access).project)
        access_changed(conn, call, "remove", _type_id(call), call.valid(Access).project)

    await call.services.db.write(revoke)


async def _row(call: Call) -> Row[Any] | None:
    def read(conn: Connection) -> Row[Any] | None:
        state.get(conn, _type_id(call))
        return state.encryption(conn, _type_id(call))

    return await call.services.db.read(read)


def _view(row: Row[Any]) -> dict[str, Any]:
    return {**dict(row._mapping), "deleted": False, "deleted_at": None}


async def _encryption(call: Call) -> dict[str, Any]:
    row = await _row(call)
    return _view(row) if row is not None else {}


async def _encryption_item(call: Call) -> dict[str, Any]:
    row, key = await _row(call), call.params["encryption_id"]
    found = _view(row) if row is not None else {}
    if key not in found:
        raise NotFound(noun="Volume type encryption value", id=key[:64])
    return {key: found[key]}


def _unused(conn: Connection, type_id: str, verb: str) -> None:
    if state.is_used(conn, type_id):
        raise BadRequest(reason=f"Cannot {verb} encryption specs. Volume type in use.")


async def _encrypt(call: Call) -> dict[str, Any]:
    values = call.valid(NewEncryption).model_dump(exclude={"encryption_id"})

    _made_so(values)

    def create(conn: Connection) -> Row[Any]:
        state.get(conn, _type_id(call))
        if state.encryption(conn, _type_id(call)) is not None:
            raise BadRequest(reason=f"Volume type encryption for type {_type_id(call)} already exists.")
        _unused(conn, _type_id(call), "create")
        encryption_changed(conn, call, "create", _type_id(call), {"specs": values})
        return state.put_encryption(conn, _type_id(call), values)

    row = await call.services.db.write(create)
    return {name: row._mapping[name] for name in EncryptionAnswer.model_fields}  # times are told by shows alone


def _made_so(values: Mapping[str, Any]) -> None:
    columns(values["provider"], values["cipher"], values["key_size"], "The encryption")


def _named(conn: Connection, call: Call) -> Row[Any]:
    """The encryption of the path must be the one of the type; python-cinderclient says `provider` instead of an id."""
    row = state.encryption(conn, _type_id(call))
    if row is None or call.params["encryption_id"] not in {row.encryption_id, "provider"}:
        raise NotFound(noun="Volume type encryption", id=call.params["encryption_id"][:64])
    return row


async def _change_encryption(call: Call) -> dict[str, Any]:
    values = call.valid(ChangedEncryption).model_dump(exclude_unset=True)

    def change(conn: Connection) -> None:
        state.get(conn, _type_id(call))
        row = _named(conn, call)
        _made_so({**row._mapping, **values})
        _unused(conn, _type_id(call), "update")
        state.change_encryption(conn, _type_id(call), values)
        encryption_changed(conn, call, "update", _type_id(call), {"id": row.encryption_id})

    await call.services.db.write(change)
    return {"encryption": values}


async def _decrypt(call: Call) -> None:
    def remove(conn: Connection) -> None:
        state.get(conn, _type_id(call))
        row = _named(conn, call)
        _unused(conn, _type_id(call), "delete")
        state.remove_encryption(conn, _type_id(call))
        encryption_changed(conn, call, "delete", _type_id(call), {"id": row.encryption_id})

    await call.services.db.write(remove)
