"""From what a handler returns to the bytes on the wire: checked by model, cut to the microversion, as JSON."""

from __future__ import annotations

import datetime
import json
import random
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import orjson
from pydantic import ValidationError

from agent.base.log import get_logger
from coordinator.api.errors import AnswerInvalid
from coordinator.api.fields import Answer, Since, Until, stamp

Validation = Literal["error", "warn", "ignore"]
_log = get_logger(__name__)
_LOOKED_AT = 8


@dataclass(frozen=True, slots=True)
class Cut:
    """What to take away from an object of one model at one version."""

    drop: tuple[str, ...]
    inside: tuple[tuple[str, Cut], ...]


def encoded(data: Any) -> bytes:
    """JSON; times in the form that Block Storage has: naive UTC with microseconds."""
    try:
        return orjson.dumps(data, _extra, orjson.OPT_PASSTHROUGH_DATETIME)
    except orjson.JSONEncodeError:
        # Numbers of more than 64 bits, which a caller may have sent, and keys of a class derived from str.
        return json.dumps(data, default=_extra, separators=(",", ":"), ensure_ascii=False).encode()


def _extra(value: Any) -> Any:
    if isinstance(value, datetime.datetime):
        return stamp(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def finished(model: type[Answer] | None, data: Any, version: int, validation: Validation, label: str) -> Any:
    """`data` checked against `model` and cut to microversion 3.`version` (in place)."""
    if model is None or data is None:
        return data
    if validation != "ignore":
        _check(model, data, validation, label)
    cut = _cut(model, version)
    if cut is not None:
        _apply(cut, data)
    return data


def _check(model: type[Answer], data: Any, validation: Validation, label: str) -> None:
    try:
        model.model_validate(data if validation == "error" else _some(data))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        reason = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in found[:5])
        if validation == "error":
            raise AnswerInvalid(reason=reason) from None
        _log.warning("an answer does not match its schema", route=label, reason=reason)


def _some(data: Any) -> Any:
    """Of long lists a few entries, others each time: what is wrong with a page is soon seen, and costs little."""
    if not isinstance(data, dict):
        return data
    long = {name: value for name, value in data.items() if isinstance(value, list) and len(value) > _LOOKED_AT}
    return {**data, **{name: random.sample(value, _LOOKED_AT) for name, value in long.items()}} if long else data


def _apply(cut: Cut, data: Any) -> None:
    if isinstance(data, list):
        for item in data:
            _apply(cut, item)
        return
    if not isinstance(data, dict):
        return
    for name in cut.drop:
        data.pop(name, None)
    for name, inner in cut.inside:
        if name in data:
            _apply(inner, data[name])


@lru_cache(maxsize=4096)
def _cut(model: type[Answer], version: int) -> Cut | None:
    drop, inside = [], []
    for name, since, until, nested in _fields(model):
        if not since <= version <= until:
            drop.append(name)
        elif nested is not None and (inner := _cut(nested, version)) is not None:
            inside.append((name, inner))
    return Cut(tuple(drop), tuple(inside)) if drop or inside else None


@cache
def _fields(model: type[Answer]) -> tuple[tuple[str, int, int, type[Answer] | None], ...]:
    found = []
    for name, field in model.model_fields.items():
        since = next((item.minor for item in field.metadata if isinstance(item, Since)), 0)
        until = next((item.minor for item in field.metadata if isinstance(item, Until)), 10_000)
        found.append((field.alias or name, since, until, _nested(field.annotation)))
    return tuple(found)


def _nested(annotation: Any) -> type[Answer] | None:
    """The answer model inside `Model`, `Model | None` or `list[Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, Answer):
        return annotation
    for argument in typing.get_args(annotation):
        found = _nested(argument)
        if found is not None:
            return found
    return None
