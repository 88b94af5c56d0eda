"""Which versions of the Image API there are, and the schemas that clients ask for."""

from __future__ import annotations

from typing import Any

from coordinator.api.call import Call
from coordinator.api.route import Resource, get
from coordinator.images.fields import CONTAINER_FORMATS, DISK_FORMATS, VISIBILITIES

PREFIX = "/image"
_VERSIONS = (("v2.7", "CURRENT"), ("v2.5", "SUPPORTED"), ("v2.0", "SUPPORTED"))
_TEXTS = (
    "status", "owner", "checksum", "os_hash_algo", "os_hash_value", "created_at", "updated_at", "self", "file",
    "schema",
)  # fmt: skip
_TEXT: dict[str, Any] = {"type": ["null", "string"], "maxLength": 255}
_READ_ONLY_TEXT: dict[str, Any] = {"type": ["null", "string"], "readOnly": True}
_READ_ONLY_NUMBER: dict[str, Any] = {"type": ["null", "integer"], "readOnly": True}


def discovery() -> Resource:
    """What needs no login."""
    return Resource(
        name="image versions",
        about="Which versions of the Image API there are.",
        prefix=PREFIX,
        routes=(
            get("", _versions, None, "List the versions of the Image API.", status=300, public=True),
            get("/versions", _versions, None, "List the versions of the Image API.", public=True),
            get("/v2", _versions, None, "Show the versions of the Image API.", public=True),
        ),
    )


def schemas() -> Resource:
    """The descriptions that some clients load before they work."""
    rule = "brickyard:images:get"
    return Resource(
        name="image schemas",
        about="JSON schemas of images, for clients that build their own checks from them.",
        prefix=f"{PREFIX}/v2/schemas",
        routes=(
            get("/image", _image, rule, "Show the schema of an image."),
            get("/images", _images, rule, "Show the schema of a list of images."),
        ),
    )


async def _versions(call: Call) -> dict[str, Any]:
    links = [{"rel": "self", "href": f"{call.base_url}{PREFIX}/v2/"}]
    return {"versions": [{"id": name, "status": status, "links": links} for name, status in _VERSIONS]}


def _schema() -> dict[str, Any]:
    properties = {
        "id": {"type": "string", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
        "name": _TEXT,
        "visibility": {"type": "string", "enum": list(VISIBILITIES)},
        "protected": {"type": "boolean"},
        "disk_format": {"type": ["null", "string"], "enum": [None, *DISK_FORMATS]},
        "container_format": {"type": ["null", "string"], "enum": [None, *CONTAINER_FORMATS]},
        "min_disk": {"type": "integer"},
        "min_ram": {"type": "integer"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 255}},
        "os_hidden": {"type": "boolean", "readOnly": True},
        **dict.fromkeys(("size", "virtual_size"), _READ_ONLY_NUMBER),
        **dict.fromkeys(_TEXTS, _READ_ONLY_TEXT),
    }
    return {
        "name": "image",
        "properties": properties,
        "additionalProperties": {"type": "string"},
        "links": [
            {"rel": "self", "href": "{self}"},
            {"rel": "enclosure", "href": "{file}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }


async def _image(call: Call) -> dict[str, Any]:
    return _schema()


async def _images(call: Call) -> dict[str, Any]:
    return {
        "name": "images",
        "properties": {
            "images": {"type": "array", "items": _schema()},
            **{name: {"type": "string"} for name in ("schema", "next", "first")},
        },
        "links": [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}],
    }
