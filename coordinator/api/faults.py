"""Errors as answers, in the form that the clients of each path expect."""

from __future__ import annotations

import math
from typing import Any

from aiohttp import web

from agent.base.errors import BrickyardError
from coordinator.api.answers import encoded
from coordinator.api.languages import Translate

_NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}
_TITLES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 409: "Conflict"}
UNEXPECTED = (
    "The server has either erred or is incapable of performing the requested operation. "
    "The request id names it in the log and among the issues."
)


class Unexpected(BrickyardError):
    """Stands for any exception that is not ours; says nothing of the inside."""

    code = "api.unexpected"
    sentence = UNEXPECTED
    hint = ""


def fault(error: BrickyardError, path: str, translate: Translate | None = None) -> web.Response:
    """The answer for an error on `path`: Block Storage, Identity (`/identity`), Image or our own form."""
    status = error.status if 400 <= error.status < 600 else 500
    sentence, hint = (str(error), error.remedy) if translate is None else error.translated(translate)
    message = " ".join(part for part in (sentence.strip(), hint.strip()) if part)
    retry_after = getattr(error, "retry_after", None)
    headers = {}
    if retry_after is None and status == 413:
        retry_after = 0
    if retry_after is not None:
        headers["Retry-After"] = str(math.ceil(retry_after))
    if path.startswith("/identity"):
        body: dict[str, Any] = {"error": {"code": status, "message": message, "title": _TITLES.get(status, "Error")}}
    elif path.startswith("/brickyard"):
        body = {"error": {**error.to_body(), "status": status, "message": sentence, "hint": hint}}
    else:
        inner: dict[str, Any] = {"code": status, "message": message}
        if retry_after is not None and status in {413, 429}:
            inner["retryAfter"] = str(math.ceil(retry_after))
        body = {_NAMES.get(status, "computeFault"): inner}
    return web.Response(body=encoded(body), status=status, headers=headers, content_type="application/json")
