"""Images as Image v2 clients see them."""

from __future__ import annotations

import datetime
from typing import Any

from pydantic import Field

from coordinator.api.fields import Answer, OpenAnswer
from coordinator.images.catalog import Image

SCHEMA = "/v2/schemas/image"
_STATUS = {"deleting": "pending_delete"}


class ImageAnswer(OpenAnswer):
    """An image; its further properties stand beside the known fields."""

    id: str
    name: str | None
    status: str
    visibility: str
    owner: str
    protected: bool
    os_hidden: bool
    disk_format: str | None
    container_format: str | None
    min_disk: int
    min_ram: int
    size: int | None
    virtual_size: int | None
    checksum: str | None
    os_hash_algo: str | None
    os_hash_value: str | None
    tags: list[str]
    created_at: str
    updated_at: str
    self_link: str = Field(alias="self")
    schema_link: str = Field(alias="schema")
    file: str


class ImagesAnswer(Answer):
    images: list[ImageAnswer]
    first: str
    next: str | None = None
    schema_link: str = Field(alias="schema")


def image_view(image: Image) -> dict[str, Any]:
    """The JSON object of one image."""
    row = image.row
    return {
        **image.properties,
        "id": row.id,
        "name": row.name,
        "status": _STATUS.get(row.status, row.status),
        "visibility": row.visibility,
        "owner": row.owner,
        "protected": row.protected,
        "os_hidden": False,
        "disk_format": row.disk_format,
        "container_format": row.container_format,
        "min_disk": row.min_disk,
        "min_ram": row.min_ram,
        "size": row.size,
        "virtual_size": row.virtual_size,
        "checksum": row.checksum,
        "os_hash_algo": row.os_hash_algo,
        "os_hash_value": row.os_hash_value,
        "tags": row.tags,
        "created_at": _time(row.created_at),
        "updated_at": _time(row.updated_at or row.created_at),
        "self": f"/v2/images/{row.id}",
        "file": f"/v2/images/{row.id}/file",
        "schema": SCHEMA,
    }


def _time(value: datetime.datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")
