"""Images: create, list, show, change, delete, tags, and their bytes."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from agent.base.errors import from_body
from coordinator.api.call import Call, Reply
from coordinator.api.errors import MalformedBody
from coordinator.api.image.common import caller_of, json_of, requester_of
from coordinator.api.image.files import download, upload
from coordinator.api.image.queries import boolean, filters_of, page_of
from coordinator.api.image.views import ImageAnswer, ImagesAnswer, image_view
from coordinator.api.route import Resource, delete, get, patch, post, put
from coordinator.images import catalog
from coordinator.images.errors import ImageInvalid
from coordinator.operations.delete_image import accept_delete
from coordinator.operations.engine import Engine
from coordinator.state.images import Page

_PATCHES = frozenset({"application/openstack-images-v2.1-json-patch", "application/json-patch+json"})


def images() -> Resource:
    """The resource table."""
    look, change = "brickyard:images:get", "brickyard:images:update"
    one = "/{image_id}"
    return Resource(
        name="images",
        about="Images that volumes are made of. The bytes lie on a host that keeps images.",
        prefix="/image/v2/images",
        routes=(
            post("", _create, "brickyard:images:create", "Register an image.", answer=ImageAnswer, status=201,
                 streams=True),
            get("", _list, look, "List the images one may use.", answer=ImagesAnswer),
            get(one, _show, look, "Show an image.", answer=ImageAnswer),
            patch(one, _update, change, "Change an image (JSON patch).", answer=ImageAnswer, streams=True),
            delete(one, _delete, "brickyard:images:delete", "Delete an image and its bytes.", status=204),
            put(f"{one}/file", upload, change, "Upload the bytes of an image, once.", status=204, streams=True),
            get(f"{one}/file", download, look, "Download the bytes of an image, or a range of them."),
            post(f"{one}/actions/deactivate", _deactivate, change, "Let nobody use an image for now.", status=204),
            post(f"{one}/actions/reactivate", _reactivate, change, "Let it be used again.", status=204),
            put(f"{one}/tags/{{tag}}", _add_tag, change, "Add a tag.", status=204),
            delete(f"{one}/tags/{{tag}}", _remove_tag, change, "Remove a tag.", status=204),
        ),
    )  # fmt: skip


async def _create(call: Call) -> Reply:
    given = await json_of(call, frozenset({"application/json"}))
    if not isinstance(given, dict):
        raise MalformedBody(reason="it is not an object")
    image_id = given.pop("id", None)
    if image_id is not None and not isinstance(image_id, str):
        raise ImageInvalid(reason="id must be a UUID in lower case")
    caller = caller_of(call)
    made = await call.services.db.write(lambda conn: catalog.create(conn, caller, given, image_id=image_id))
    return Reply(image_view(made), headers={"Location": f"{call.base_url}/image/v2/images/{made.row.id}"})


async def _list(call: Call) -> dict[str, Any]:
    page = page_of(call.query, call.services.settings.max_limit)
    filters = filters_of(call.query, None if call.context.is_admin else call.context.project_id)
    others = [(key, value) for key, value in call.query.items() if key != "marker"]
    answer = {"images": [], "first": _link(others), "schema": "/v2/schemas/images"}
    if page.limit == 0 or ("os_hidden" in call.query and boolean(call.query["os_hidden"], "os_hidden")):
        return answer
    wider = Page(page.limit + 1, page.marker, page.sort)
    found = await call.services.db.read(lambda conn: catalog.listing(conn, filters, wider))
    shown = found[: page.limit]
    if len(found) > page.limit:
        answer["next"] = _link([*others, ("marker", shown[-1].row.id)])
    return {**answer, "images": [image_view(image) for image in shown]}


def _link(query: list[tuple[str, str]]) -> str:
    return "/v2/images" + (f"?{urlencode(query, quote_via=quote)}" if query else "")


async def _show(call: Call) -> dict[str, Any]:
    caller, image_id = caller_of(call), call.params["image_id"]
    return image_view(await call.services.db.read(lambda conn: catalog.show(conn, caller, image_id)))


async def _update(call: Call) -> dict[str, Any]:
    operations = await json_of(call, _PATCHES)
    caller, image_id = caller_of(call), call.params["image_id"]
    return image_view(
        await call.services.db.write(lambda conn: catalog.update(conn, caller, image_id, operations))
    )  # fmt: skip


async def _delete(call: Call) -> None:
    await delete_image(call, call.params["image_id"])


async def delete_image(call: Call, image_id: str) -> None:
    """Delete and wait for it as long as a synchronous call does; the work goes on in any case."""
    engine = call.services.get(Engine)
    caller, requester = caller_of(call), requester_of(call)
    operation, fresh = await call.services.db.write(lambda conn: accept_delete(conn, requester, caller, image_id))
    if fresh:
        engine.start(operation)
    ended = await engine.wait(operation.id, call.services.settings.sync_timeout)
    if ended is not None and ended.state != "done":
        raise from_body(ended.error or {})


async def _deactivate(call: Call) -> None:
    await _set_active(call, active=False)


async def _reactivate(call: Call) -> None:
    await _set_active(call, active=True)


async def _set_active(call: Call, *, active: bool) -> None:
    caller, image_id = caller_of(call), call.params["image_id"]
    await call.services.db.write(lambda conn: catalog.set_active(conn, caller, image_id, active=active))


async def _add_tag(call: Call) -> None:
    await _retag(call, add=True)


async def _remove_tag(call: Call) -> None:
    await _retag(call, add=False)


async def _retag(call: Call, *, add: bool) -> None:
    caller, image_id, tag = caller_of(call), call.params["image_id"], call.params["tag"]
    await call.services.db.write(lambda conn: catalog.retag(conn, caller, image_id, tag, add=add))
