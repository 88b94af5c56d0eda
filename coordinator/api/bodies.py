"""Checking a request body against its model, with the wording that clients of Block Storage compare with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, cast

from aiohttp import web
from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from agent.base.redact import HIDDEN, is_secret_name, redacted
from coordinator.api.errors import BadRequest, BodyTooLarge, InvalidField, MalformedBody
from coordinator.api.fields import Body, Hidden, Since, SinceOurs, Until
from coordinator.api.version import MAXIMUM

B = TypeVar("B", bound=Body)
_SHOWN = 1000


async def received(request: web.Request, limit: int) -> bytes:
    """The body of a request; raises BodyTooLarge, MalformedBody for one that breaks off."""
    if (request.content_length or 0) > limit:
        raise BodyTooLarge(limit=limit)
    raw = bytearray()
    try:
        # What was announced does not bound it: a packed body may unpack to a thousand times as much.
        while len(raw) <= limit and (more := await request.content.read(limit + 1 - len(raw))):
            raw += more
    except (web.RequestPayloadError, OSError):
        raise MalformedBody(reason="it breaks off, or can not be unpacked") from None
    if len(raw) > limit:
        raise BodyTooLarge(limit=limit)
    return bytes(raw)


def parsed(raw: bytes) -> dict[str, Any]:
    """The JSON object of a request; raises MalformedBody."""
    try:
        found = from_json(raw, allow_inf_nan=False)
    except ValueError:
        raise MalformedBody(reason="cannot understand JSON") from None
    if not isinstance(found, dict):
        raise MalformedBody(reason="it is not an object")
    return cast(dict[str, Any], found)


def checked(model: type[B], data: Mapping[str, Any], key: str | None, version: int, ours: int = 0) -> B:
    """`data[key]` (or `data` without a key) as an instance of `model`, by the rules of 3.`version` and our 1.`ours`."""
    if key is None:
        return _checked(model, data, "body", version, ours)
    data = _gathered(model, data, key)
    if key not in data:
        raise BadRequest(reason=f"'{key}' is a required property")
    if len(data) > 1 and model.unknown_refused_from <= version:
        others = ", ".join(repr(other) for other in data if other != key)
        raise BadRequest(reason=f"Additional properties are not allowed ({others[:_SHOWN]} was unexpected)")
    return _checked(model, data[key], key, version, ours)


def _gathered(model: type[B], data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """What stands beside the object, though it belongs to it, is moved into it."""
    moved = {name: data[name] for name in model.beside if name in data}
    if not moved or not isinstance(data.get(key), dict):
        return data
    rest = {name: value for name, value in data.items() if name not in moved}
    return {**rest, key: {**data[key], **moved}}


def _checked(model: type[B], data: Any, key: str, version: int, ours: int) -> B:
    if data is None and not any(field.is_required() for field in model.model_fields.values()):
        data = {}
    if not isinstance(data, dict):
        reason = f"{redacted(key, data)!r:.{_SHOWN}} is not of type 'object'"
        raise InvalidField(field=key, value=_shown(key, data), reason=reason)
    spans, newer = _spans(model), _ours(model)
    unknown = [name for name in data if not _known(spans.get(name), version) or newer.get(name, 0) > ours]
    if model.model_config.get("extra") == "allow":
        unknown = [name for name in unknown if name in spans]
    if unknown:
        if model.unknown_refused_from <= version:
            names = ", ".join(repr(name) for name in unknown)
            raise InvalidField(
                field=key,
                value=HIDDEN if _hidden(model) else _shown(key, data),
                reason=f"Additional properties are not allowed ({names[:_SHOWN]} was unexpected)",
            )
        data = {name: value for name, value in data.items() if name not in unknown}
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _translated(error.errors(include_url=False)[0], key, data, _hidden(model)) from None


def _known(span: tuple[int, int] | None, version: int) -> bool:
    return span is not None and span[0] <= version <= span[1]


@cache
def _spans(model: type[Body]) -> dict[str, tuple[int, int]]:
    """Per key of the JSON object the first and last microversion it exists in."""
    spans = {}
    for name, field in model.model_fields.items():
        since = next((item.minor for item in field.metadata if isinstance(item, Since)), 0)
        until = next((item.minor for item in field.metadata if isinstance(item, Until)), MAXIMUM)
        spans[field.alias or name] = (since, until)
    return spans


@cache
def _ours(model: type[Body]) -> dict[str, int]:
    """Per key that goes beyond Block Storage the `brickyard 1.N` it exists from."""
    found = ((name, item) for name, field in model.model_fields.items() for item in field.metadata)
    return {name: item.minor for name, item in found if isinstance(item, SinceOurs)}


@cache
def _hidden(model: type[Body]) -> frozenset[str]:
    return frozenset(
        field.alias or name
        for name, field in model.model_fields.items()
        if any(isinstance(item, Hidden) for item in field.metadata)
    )


def _translated(error: ErrorDetails, key: str, data: Any, hidden: frozenset[str]) -> InvalidField:
    where, given = _path(error["loc"], data), error["input"]
    if error["type"] == "missing":
        parent = where[-1] if where else key
        shown = HIDDEN if hidden else _shown(parent, given)
        return InvalidField(field=parent, value=shown, reason=f"'{error['loc'][-1]}' is a required property")
    field = where[-1] if where else key
    if any(name in hidden or is_secret_name(name) for name in where):
        return InvalidField(field=field, value=HIDDEN, reason="The value is not acceptable (it is not shown)")
    return InvalidField(field=field, value=_shown(field, given), reason=_reason(error))


def _path(loc: tuple[int | str, ...], data: Any) -> list[str]:
    """The keys that lead to what is wrong, without what only the checker knows: kinds of a union, steps of a check."""
    path: list[str] = []
    for part in loc:
        inside = isinstance(data, dict) and part in data
        if inside or (isinstance(data, list) and isinstance(part, int) and part < len(data)):
            path, data = [*path, str(part)], data[part]
    return path


def _shown(name: str, value: Any) -> str:
    return str(redacted(name, value))[:_SHOWN]


_TYPES = {
    "string_type": "string",
    "dict_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
    "list_type": "array",
    "bool_type": "boolean",
    "int_type": "integer",
}


def _reason(error: ErrorDetails) -> str:
    kind, given, limits = error["type"], error["input"], error.get("ctx", {})
    shown = repr(redacted("", given))[:_SHOWN]
    if kind in _TYPES:
        return f"{shown} is not of type '{_TYPES[kind]}'"
    match kind:
        case "string_too_long" | "too_long":
            return f"{shown} is too long"
        case "string_too_short" | "too_short":
            return f"{shown} is too short"
        case "greater_than_equal" | "greater_than":
            return f"{shown} is less than the minimum of {limits.get('ge', limits.get('gt'))}"
        case "less_than_equal" | "less_than":
            return f"{shown} is greater than the maximum of {limits.get('le', limits.get('lt'))}"
        case "literal_error" | "enum":
            return f"{shown} is not one of [{limits.get('expected')}]"
        case "string_pattern_mismatch":
            return f"{shown} does not match {limits.get('pattern')!r}"
    return error["msg"].removeprefix("Value error, ")
