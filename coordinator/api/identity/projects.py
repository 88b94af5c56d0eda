"""Projects and domains."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection, Row

from agent.base.errors import Conflict
from coordinator.api.call import Call
from coordinator.api.fields import Boolean
from coordinator.api.identity.tokens import PREFIX, Lenient
from coordinator.api.identity.views import (
    changed,
    created,
    domain_view,
    filters,
    listed,
    project_view,
    wanted,
    write,
)
from coordinator.api.route import Resource, delete, get, patch, post
from coordinator.identity.bootstrap import ADMIN_PROJECT_ID
from coordinator.identity.scope import DEFAULT_DOMAIN
from coordinator.state import identity as state

ProjectName = Annotated[str, Field(min_length=1, max_length=64)]


class CreateProject(Lenient):
    name: ProjectName
    domain_id: str = DEFAULT_DOMAIN
    description: str | None = None
    enabled: Boolean = True


class UpdateProject(Lenient):
    name: ProjectName | None = None
    description: str | None = None
    enabled: Boolean | None = None


def projects() -> Resource:
    """Projects, and the domains they are in."""
    path = "/projects/{project_id}"
    return Resource(
        name="identity-projects",
        about="Projects and domains.",
        prefix=PREFIX,
        routes=(
            get("/projects", _list, "identity:list_projects", "List projects.",
                query=("name", "domain_id", "enabled")),
            post("/projects", _create, "identity:create_project", "Create a project.", body=CreateProject,
                 body_key="project", answer_key="project", status=201),
            get(path, _show, None, "Show a project.", answer_key="project"),
            patch(path, _update, "identity:update_project", "Change a project.", body=UpdateProject,
                  body_key="project", answer_key="project"),
            delete(path, _delete, "identity:delete_project", "Delete a project.", status=204),
            get("/domains", _domains, "identity:list_domains", "List domains.", query=("name", "enabled")),
            get("/domains/{domain_id}", _domain, None, "Show a domain.", answer_key="domain"),
        ),
    )  # fmt: skip


async def _list(call: Call) -> dict[str, Any]:
    equal = filters(call, "name", "domain_id", "enabled")
    found = await call.services.db.read(lambda conn: state.rows(conn, "project", **equal))
    return listed(call, "projects", [project_view(call, row) for row in found])


async def _show(call: Call) -> dict[str, Any]:
    project_id = call.params["project_id"]
    if project_id != call.context.project_id:
        call.require("identity:list_projects")
    return project_view(call, await call.services.db.read(lambda conn: wanted(conn, "project", project_id)))


async def _create(call: Call) -> dict[str, Any]:
    given = call.valid(CreateProject)
    values = {**given.model_dump(), "description": given.description or ""}

    def create(conn: Connection) -> Row[Any]:
        wanted(conn, "domain", given.domain_id)
        return created(conn, "project", **values)

    return project_view(call, await write(call, create))


async def _update(call: Call) -> dict[str, Any]:
    values = call.valid(UpdateProject).model_dump(exclude_none=True)
    row = await write(call, lambda conn: changed(conn, "project", call.params["project_id"], **values))
    return project_view(call, row)


async def _delete(call: Call) -> None:
    project_id = call.params["project_id"]
    if project_id == ADMIN_PROJECT_ID:
        raise Conflict(reason="The project 'admin' can not be deleted.")

    def remove(conn: Connection) -> None:
        wanted(conn, "project", project_id)
        state.remove(conn, "project", project_id)

    await write(call, remove)


async def _domains(call: Call) -> dict[str, Any]:
    equal = filters(call, "name", "enabled")
    found = await call.services.db.read(lambda conn: state.rows(conn, "domain", **equal))
    return listed(call, "domains", [domain_view(call, row) for row in found])


async def _domain(call: Call) -> dict[str, Any]:
    domain_id = call.params["domain_id"]
    if domain_id != call.context.principal.user_domain_id:
        call.require("identity:list_domains")
    return domain_view(call, await call.services.db.read(lambda conn: wanted(conn, "domain", domain_id)))
