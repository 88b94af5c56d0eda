"""What users are told of a volume type, as keys and values; it may change while volumes have the type.

Unlike extra specs it is shown to everybody and chooses no back end. In `/v3/types` it comes with `brickyard 1.1`.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from sqlalchemy import Connection

from agent.base.errors import NotFound
from coordinator.api.call import Call
from coordinator.api.fields import Answer, Body, Metadata
from coordinator.api.route import Resource, delete, get, post
from coordinator.api.v3.type_events import metadata_changed
from coordinator.api.v3.types import visible_to
from coordinator.state import metadata, types


class AddMetadata(Body):
    metadata: Metadata = Field(min_length=1)


class MetadataAnswer(Answer):
    metadata: dict[str, str]


async def show(call: Call) -> dict[str, Any]:
    def read(conn: Connection) -> dict[str, str]:
        return metadata.read(conn, "type", types.get(conn, call.params["volume_type_id"], visible_to(call)).id)

    return {"metadata": await call.services.db.read(read)}


async def add(call: Call) -> dict[str, Any]:
    """Add or overwrite keys; the others stay."""
    values = call.valid(AddMetadata).metadata

    def change(conn: Connection) -> dict[str, str]:
        row = types.get(conn, call.params["volume_type_id"])
        metadata_changed(conn, call, "create", row.id, {"metadata": values})
        return metadata.merge(conn, "type", row.id, values)

    return {"metadata": await call.services.db.write(change)}


async def remove(call: Call) -> None:
    def change(conn: Connection) -> None:
        row, key = types.get(conn, call.params["volume_type_id"]), call.params["key"]
        if not metadata.remove(conn, "type", row.id, key):
            raise NotFound(noun="Metadata key", id=key[:255])
        metadata_changed(conn, call, "delete", row.id, {"id": key})

    await call.services.db.write(change)


def resource() -> Resource:
    """The routes."""
    path = "/types/{volume_type_id}/metadata"
    return Resource(
        "type_metadata",
        "What users are told of volume types.",
        (
            get(path, show, "volume_extension:type_get", "Show the metadata of a type.", answer=MetadataAnswer),
            post(path, add, "volume_extension:type_update", "Add metadata to a type.", body=AddMetadata,
                 answer=MetadataAnswer),
            delete(f"{path}/{{key}}", remove, "volume_extension:type_update", "Remove one key.", status=204),
        ),
        prefix="/brickyard/v1",
    )  # fmt: skip
