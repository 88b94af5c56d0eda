"""Images fetched by their address (`web-download`), as the Image API has it."""

from __future__ import annotations

import re
from typing import Any

from coordinator.api.call import Call
from coordinator.api.errors import MalformedBody
from coordinator.api.image.common import caller_of, json_of, requester_of
from coordinator.api.route import Resource, get, post
from coordinator.images.errors import ImageInvalid
from coordinator.keys.store import KeyStore
from coordinator.operations.engine import Engine
from coordinator.operations.import_image import accept_import

METHOD = "web-download"
_LONGEST = 4096
_URL = re.compile(r"https?://[\x21-\x7e]+")
_DIGITS = {"md5": 32, "sha256": 64, "sha512": 128}


def imports() -> Resource:
    """The routes."""
    return Resource(
        name="image imports",
        about="Images that the site fetches itself from a web server.",
        prefix="/image/v2",
        routes=(
            get("/info/import", _methods, "brickyard:images:get", "Show how images can be imported."),
            post("/images/{image_id}/import", _import, "brickyard:images:update",
                 "Fetch the bytes of an image from a web server.", status=202, streams=True),
        ),
    )  # fmt: skip


async def _methods(call: Call) -> dict[str, Any]:
    return {"import-methods": {"description": "Import methods available.", "type": "array", "value": [METHOD]}}


async def _import(call: Call) -> None:
    given = await json_of(call, frozenset({"application/json"}))
    method = given.get("method") if isinstance(given, dict) else None
    if not isinstance(method, dict):
        raise MalformedBody(reason="it has no method")
    if method.get("name") != METHOD:
        raise ImageInvalid(reason=f"the only import method is {METHOD}")
    url, checksum = _address(method.get("uri")), _checksum(method)
    image_id, caller, who = call.params["image_id"], caller_of(call), requester_of(call)
    keys = call.services.get(KeyStore)
    await call.services.get(Engine).submit(
        lambda conn: (accept_import(conn, who, keys, caller, image_id, url=url, checksum=checksum), None)
    )


def _address(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST or not _URL.fullmatch(value):
        raise ImageInvalid(reason="uri must be an http or https address")
    if "@" in value.partition("://")[2].partition("/")[0]:
        raise ImageInvalid(reason="uri must not hold a user or a password")
    return value


def _checksum(method: dict[str, Any]) -> tuple[str, str] | None:
    """`os_hash_algo` and `os_hash_value`, where the caller knows them."""
    name, value = method.get("os_hash_algo"), method.get("os_hash_value")
    if name is None and value is None:
        return None
    if name not in _DIGITS or not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]*", value):
        raise ImageInvalid(reason="os_hash_algo is one of md5, sha256, sha512, and os_hash_value its hex digits")
    if len(value) != _DIGITS[name]:
        raise ImageInvalid(reason=f"os_hash_value has {_DIGITS[name]} hex digits for {name}")
    return name, value.lower()
