"""The volume type of a project whose members name none (from 3.62)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from coordinator.api.acting import check_project
from coordinator.api.call import Call
from coordinator.api.fields import Answer, Body, RequiredName
from coordinator.api.route import Resource, delete, get, put
from coordinator.state import default_types as state

_SINCE = 62


class SetDefault(Body):
    """`volume_type` is a name or an id."""

    volume_type: RequiredName


class DefaultAnswer(Answer):
    project_id: str
    volume_type_id: str


class DefaultList(Answer):
    default_types: list[DefaultAnswer]


def resource() -> Resource:
    """The project stands in the path."""
    one, rule = "/default-types/{project_id}", "volume_extension:default"
    answer: dict[str, Any] = {"answer": DefaultAnswer, "answer_key": "default_type", "since": _SINCE}
    return Resource(
        "default-types",
        "Default volume types of projects.",
        (
            get("/default-types", _list, f"{rule}_get_all", "List the projects that have their own default.",
                answer=DefaultList, since=_SINCE),
            get(one, _show, f"{rule}_get", "Show the default type of a project.", **answer),
            put(one, _put, f"{rule}_set_or_update", "Set the default type of a project.", body=SetDefault,
                body_key="default_type", **answer),
            delete(one, _unset, f"{rule}_unset", "Back to the site's default type.", since=_SINCE, status=204),
        ),
    )  # fmt: skip


def _view(row: Row[Any]) -> dict[str, Any]:
    return {"project_id": row.project_id, "volume_type_id": row.volume_type_id}


async def _list(call: Call) -> dict[str, Any]:
    rows = await call.services.db.read(state.listing)
    return {"default_types": [_view(row) for row in rows]}


async def _show(call: Call) -> dict[str, Any]:
    return _view(await call.services.db.read(lambda conn: state.get(conn, call.params["project_id"])))


async def _put(call: Call) -> dict[str, Any]:
    project, wanted = call.params["project_id"], call.valid(SetDefault).volume_type
    await check_project(call, project)
    return _view(await call.services.db.write(lambda conn: state.put(conn, project, wanted)))


async def _unset(call: Call) -> None:
    await call.services.db.write(lambda conn: state.remove(conn, call.params["project_id"]))
