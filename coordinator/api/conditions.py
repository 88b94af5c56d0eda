"""What the values of filters mean, as conditions on columns; all raise BadRequest for a value that says nothing."""

from __future__ import annotations

import ast
import datetime
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Table, and_, false, or_

from coordinator.api.errors import BadRequest
from coordinator.api.fields import FALSE, TRUE
from coordinator.api.lists import Filter
from coordinator.state.volume_lists import has_pair

_LONGEST = 4096
_MOST_PAIRS = 128
_STRICT_SINCE = 2
_ZONE = re.compile(r"(\d\S*[T ]\S+) (\d\d:?\d\d)")
_OLD_FALSE = frozenset({"False", "false", "FALSE", ""})
"""Before 3.2 all else was true."""
_COMPARED: dict[str, Callable[[Any, Any], Any]] = {
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "eq": lambda column, value: column == value,
    "neq": lambda column, value: column != value,
}


NO_INDEX, FEW, SOME, MANY, MANY_OF_PROJECT = (0, 0), (3, 3), (2, 2), (1, 0), (1, 2)
"""What the index of a filter finds: a handful of rows, no more than a project has, a good part of all; the last one has
an index in each project, too."""


def exact(column: ColumnElement[Any], since: int = 0, narrows: tuple[int, int] = NO_INDEX) -> Filter:
    """The value itself."""
    beside = (lambda value: unindexed(column) == value) if any(narrows) else None
    return Filter(lambda value: column == value, since, narrows=narrows, beside=beside, quiet=since > 0)


def unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A text that is not looked for by an index."""
    return column.concat("")


def like(column: ColumnElement[Any], since: int = 34) -> Filter:
    """The value anywhere in it; `%` and `_` stand for themselves."""
    return Filter(lambda value: column.contains(value, autoescape=True), since)


def number(column: ColumnElement[Any], since: int = 0) -> Filter:
    """A whole number; nothing matches what is none."""

    def means(value: str) -> ColumnElement[bool]:
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            return false()
        found: ColumnElement[bool] = column == int(value)
        return found

    return Filter(means, since)


def truth(name: str, column: ColumnElement[Any], since: int = 0) -> Filter:
    """True or false, in the spellings of the API; passed over before `since`."""
    return Filter(
        lambda value: column if boolean(name, value) else ~column, since, quiet=since > 0,
        once=(_STRICT_SINCE, lambda value: ~column if value in _OLD_FALSE else column),
    )  # fmt: skip


def ids(column: ColumnElement[Any], since: int = 0) -> Filter:
    """One id, or several in brackets or between commas."""
    return Filter(lambda value: column.in_(_list(value)), since)


def time(name: str, column: ColumnElement[Any], since: int = 0) -> Filter:
    """`gt:TIME,lt:TIME`; whole seconds are compared, so that `eq` can hold. What has no time matches nothing."""
    return Filter(lambda value: time_condition(column, name, value), since, quiet=True)


def pairs(name: str, table: Table, column: str, owner: ColumnElement[str], since: int = 0) -> Filter:
    """All the keys and values of an object written as JSON, or as a Python literal as older clients do."""
    return Filter(lambda value: pairs_condition(name, value, table, column, owner), since, quiet=since > 0)


def pairs_condition(name: str, value: str, table: Table, column: str, owner: ColumnElement[str]) -> ColumnElement[bool]:
    found = parsed(value)
    if not isinstance(found, Mapping):
        raise BadRequest(reason=f'Invalid value for filter {name}: an object like {{"key": "value"}} is needed.')
    if len(found) > _MOST_PAIRS:
        raise BadRequest(reason=f"Invalid value for filter {name}: it has more than {_MOST_PAIRS} keys.")
    return and_(*(has_pair(table, column, owner, str(key), str(wanted)) for key, wanted in found.items()))


def time_condition(column: ColumnElement[Any], name: str, value: str) -> ColumnElement[bool]:
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
        # A plus that was sent as it is arrives as a blank.
        moment = datetime.datetime.fromisoformat(_ZONE.sub(r"\1+\2", text))
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
    """A true or false filter value."""
    word = value.strip().lower()
    if word in TRUE or word in FALSE:
        return word in TRUE
    raise BadRequest(reason=f"Invalid value '{value[:64]}' for {name}. Use one of: true, false.")


def _list(value: str) -> list[str]:
    found = parsed(value) if value.startswith("[") else value.split(",")
    return [str(item) for item in found][:1000] if isinstance(found, list) else []


def parsed(value: str) -> Any:
    """A JSON value or a Python literal; None for what is neither."""
    if len(value) > _LONGEST:
        return None
    try:
        return json.loads(value)
    except RecursionError:
        return None
    except ValueError:
        pass
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
