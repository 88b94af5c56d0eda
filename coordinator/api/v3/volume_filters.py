"""Filters of volume lists: which there are, from which version, and what each means."""

from __future__ import annotations

import ast
import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, false, or_

from coordinator.api.call import Call
from coordinator.api.errors import BadRequest
from coordinator.api.fields import FALSE, TRUE
from coordinator.api.paging import filters
from coordinator.api.v3.names import FILTERS
from coordinator.state.tables.volumes import volume_image_metadata, volume_metadata, volumes
from coordinator.state.volume_lists import has_pair

_SINCE = {"created_at": 60, "updated_at": 60, "consumes_quota": 65, "glance_metadata": 4}
_ADMIN = ("id", "host", "user_id", "project_id", "tenant_id", "attach_status", "volume_type_id", "snapshot_id",
          "source_volid", "encryption_key_id", "description", "glance_metadata")  # fmt: skip
SORT_KEYS = {
    name: name
    for name in (
        "id", "status", "size", "availability_zone", "name", "bootable", "created_at", "updated_at", "attach_status",
        "user_id", "project_id", "volume_type_id", "multiattach", "description", "launched_at",
    )
} | {"display_name": "name", "display_description": "description"}  # fmt: skip
_LONGEST = 4096
_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "eq": lambda column, value: column == value,
    "neq": lambda column, value: column != value,
}


def volume_conditions(call: Call) -> tuple[list[ColumnElement[bool]], str | None]:
    """The conditions that the query parameters ask for, and the project they name (for administrators)."""
    allowed = [*FILTERS["volume"]]
    if call.version < 31 or call.context.is_admin:
        allowed += _ADMIN
    given = filters(call, [name for name in allowed if call.version >= _SINCE.get(name, 0)])
    project = given.pop("project_id", None) or given.pop("tenant_id", None)
    given.pop("tenant_id", None)
    return [_condition(name, value, call.context.is_admin) for name, value in given.items()], project


def _condition(name: str, value: str, is_admin: bool) -> ColumnElement[bool]:
    match name:
        case "metadata":
            return pairs_condition(name, value, volume_metadata, "volume_id", volumes.c.id)
        case "glance_metadata" | "image_metadata":
            return pairs_condition(name, value, volume_image_metadata, "volume_id", volumes.c.id)
        case "bootable" | "multiattach":
            return volumes.c[name].is_(boolean(name, value))
        case "consumes_quota":
            return volumes.c.use_quota.is_(boolean(name, value))
        case "host":
            return _on_host(value) if is_admin else false()
        case "created_at" | "updated_at":
            return time_condition(volumes.c[name], name, value)
        case "size":
            return volumes.c.size == int(value) if value.isascii() and value.isdigit() and len(value) < 10 else false()
        case "id":
            return volumes.c.id.in_(_list(value))
        case "display_name":
            return volumes.c.name == value
        case "name~":
            return volumes.c.name.contains(value, autoescape=True)
    return volumes.c[name] == value


def _on_host(value: str) -> ColumnElement[bool]:
    """`host`, `host@backend` or `host@backend#pool`."""
    host, _, rest = value.partition("@")
    backend, _, pool = rest.partition("#")
    wanted = [volumes.c.host_id == host]
    if backend:
        wanted.append(volumes.c.backend == backend)
    if pool:
        wanted.append(volumes.c.pool == pool)
    return and_(*wanted)


def pairs_condition(name: str, value: str, table: Table, column: str, owner: ColumnElement[str]) -> ColumnElement[bool]:
    """All the keys and values of an object written as JSON, or as a Python literal as older clients do."""
    found = _parsed(value)
    if not isinstance(found, Mapping):
        raise BadRequest(reason=f'Invalid value for filter {name}: an object like {{"key": "value"}} is needed.')
    return and_(*(has_pair(table, column, owner, str(key), str(wanted)) for key, wanted in found.items()))


def time_condition(column: ColumnElement[Any], name: str, value: str) -> ColumnElement[bool]:
    """`gt:TIME,lt:TIME`; whole seconds are compared, so that `eq` can hold."""
    wanted: list[ColumnElement[bool]] = []
    for part in value.split(","):
        word, colon, text = part.partition(":")
        if not colon or word not in _COMPARED:
            raise BadRequest(
                reason=f"Invalid value for filter {name}: {part[:64]!r} is not like gt:2026-01-31T12:00:00."
            )
        wanted.append(_compared(column, word, _moment(name, text.strip())))
    return and_(*wanted)


def _moment(name: str, text: str) -> datetime.datetime:
    try:
        moment = datetime.datetime.fromisoformat(text)
        return moment if moment.tzinfo is None else moment.astimezone(datetime.UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise BadRequest(reason=f"Invalid value for filter {name}: {text[:64]!r} is not a time.") from None


def _compared(column: ColumnElement[Any], word: str, moment: datetime.datetime) -> ColumnElement[bool]:
    if moment.microsecond == 0 and moment.year < datetime.MAXYEAR:
        next_second = moment + datetime.timedelta(seconds=1)
        match word:
            case "eq":
                return and_(column >= moment, column < next_second)
            case "neq":
                return or_(column < moment, column >= next_second)
            case "gt":
                return column >= next_second
            case "lte":
                return column < next_second
    result: ColumnElement[bool] = _COMPARED[word](column, moment)
    return result


def boolean(name: str, value: str) -> bool:
    """A true or false filter value; raises BadRequest."""
    word = value.strip().lower()
    if word in TRUE or word in FALSE:
        return word in TRUE
    raise BadRequest(reason=f"Invalid value '{value[:64]}' for {name}. Use one of: true, false.")


def _list(value: str) -> list[str]:
    """One id, or several in brackets or between commas."""
    found = _parsed(value) if value.startswith("[") else value.split(",")
    return [str(item) for item in found][:1000] if isinstance(found, list) else []


def _parsed(value: str) -> Any:
    if len(value) > _LONGEST:
        return None
    try:
        return json.loads(value)
    except ValueError:
        pass
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
