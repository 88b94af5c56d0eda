"""Users."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection, Row

from coordinator.api.call import Call
from coordinator.api.fields import Boolean, Hidden
from coordinator.api.identity.tokens import PREFIX, Lenient
from coordinator.api.identity.views import changed, created, filters, listed, project_view, user_view, wanted, write
from coordinator.api.route import Resource, delete, get, patch, post
from coordinator.identity.errors import BadCredentials, Forbidden, WeakPassword
from coordinator.identity.local import LocalIdentity
from coordinator.identity.scope import DEFAULT_DOMAIN, Named
from coordinator.state import identity as state

Password = Annotated[str, Hidden(), Field(max_length=4096)]
UserName = Annotated[str, Field(min_length=1, max_length=255)]


class CreateUser(Lenient):
    name: UserName
    password: Password | None = None
    domain_id: str = DEFAULT_DOMAIN
    default_project_id: str | None = Field(None, max_length=64)
    description: str | None = None
    email: str | None = Field(None, max_length=255)
    enabled: Boolean = True


class UpdateUser(Lenient):
    name: UserName | None = None
    password: Password | None = None
    default_project_id: str | None = Field(None, max_length=64)
    description: str | None = None
    email: str | None = Field(None, max_length=255)
    enabled: Boolean | None = None


class ChangePassword(Lenient):
    original_password: Password
    password: Password


def users() -> Resource:
    """Users and their passwords."""
    path = "/users/{user_id}"
    return Resource(
        name="identity-users",
        about="Users.",
        prefix=PREFIX,
        routes=(
            get("/users", _list, "identity:list_users", "List users.", query=("name", "domain_id", "enabled")),
            post("/users", _create, "identity:create_user", "Create a user.", body=CreateUser, body_key="user",
                 answer_key="user", status=201),
            get(path, _show, None, "Show a user.", answer_key="user"),
            patch(path, _update, "identity:update_user", "Change a user.", body=UpdateUser, body_key="user",
                  answer_key="user"),
            delete(path, _delete, "identity:delete_user", "Delete a user.", status=204),
            post(f"{path}/password", _password, None, "Change one's own password.", body=ChangePassword,
                 body_key="user", status=204),
            get(f"{path}/projects", _projects, None, "List the projects of a user."),
        ),
    )  # fmt: skip


async def _list(call: Call) -> dict[str, Any]:
    equal = filters(call, "name", "domain_id", "enabled")
    found = await call.services.db.read(lambda conn: state.rows(conn, "user", **equal))
    return listed(call, "users", [user_view(call, row) for row in found])


def _own_or(call: Call, rule: str) -> str:
    user_id = call.params["user_id"]
    if user_id != call.context.user_id:
        call.require(rule)
    return user_id


async def _show(call: Call) -> dict[str, Any]:
    user_id = _own_or(call, "identity:get_user")
    return user_view(call, await call.services.db.read(lambda conn: wanted(conn, "user", user_id)))


async def _projects(call: Call) -> dict[str, Any]:
    user_id = _own_or(call, "identity:get_user")
    found = await call.services.db.read(lambda conn: state.projects_of(conn, user_id))
    return listed(call, "projects", [project_view(call, row) for row in found])


async def _hash(call: Call, password: str) -> str:
    identity = call.services.get(LocalIdentity)
    if len(password) < identity.settings.password_minimum:
        raise WeakPassword(minimum=identity.settings.password_minimum)
    return await identity.hashed(password)


async def _create(call: Call) -> dict[str, Any]:
    given = call.valid(CreateUser)
    values = given.model_dump(exclude={"password", "description"})
    values["description"] = given.description or ""
    if given.password is not None:
        values["password_hash"] = await _hash(call, given.password)

    def create(conn: Connection) -> Row[Any]:
        wanted(conn, "domain", given.domain_id)
        if given.default_project_id:
            wanted(conn, "project", given.default_project_id)
        return created(conn, "user", **values)

    return user_view(call, await write(call, create))


async def _update(call: Call) -> dict[str, Any]:
    given = call.valid(UpdateUser)
    values = given.model_dump(exclude={"password"}, exclude_unset=True)
    for name in ("name", "description", "enabled"):
        if values.get(name, "") is None:
            del values[name]
    if given.password is not None:
        values["password_hash"] = await _hash(call, given.password)
    if given.password is not None or given.enabled is False:
        values["tokens_valid_after"] = call.services.get(LocalIdentity).now()
    row = await write(call, lambda conn: changed(conn, "user", call.params["user_id"], **values))
    return user_view(call, row)


async def _delete(call: Call) -> None:
    def remove(conn: Connection) -> None:
        wanted(conn, "user", call.params["user_id"])
        state.remove(conn, "user", call.params["user_id"])

    await write(call, remove)


async def _password(call: Call) -> None:
    user_id = call.params["user_id"]
    if user_id != call.context.user_id:
        raise Forbidden(rule="identity:change_password")
    given, identity = call.valid(ChangePassword), call.services.get(LocalIdentity)
    try:
        await identity.proven(Named(id=user_id), given.original_password, call.address)
    except BadCredentials:
        raise Forbidden(rule="identity:change_password") from None
    values = {"password_hash": await _hash(call, given.password), "tokens_valid_after": identity.now()}
    await write(call, lambda conn: changed(conn, "user", user_id, **values))
