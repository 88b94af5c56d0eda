"""Building blocks of request and answer models.

`size: Annotated[Gib, ...]`; a field that exists only from a microversion on says so: `Annotated[str | None, Since(13)]`
(`Until(54)`: up to and including it). Request bodies derive from `Body`, answers from `Answer`.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from agent.base.ids import is_id
from coordinator.state.metadata import MOST_KEYS

TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
FALSE = frozenset({"0", "f", "false", "off", "n", "no"})


@dataclass(frozen=True, slots=True)
class Since:
    """The field exists from microversion 3.`minor` on."""

    minor: int


@dataclass(frozen=True, slots=True)
class SinceOurs:
    """The field exists from `brickyard 1.minor` on."""

    minor: int


@dataclass(frozen=True, slots=True)
class Until:
    """The field exists up to and including microversion 3.`minor`."""

    minor: int


@dataclass(frozen=True, slots=True)
class Hidden:
    """The value is a secret and is never echoed."""


class Body(BaseModel):
    """A request body (or the object below its key). Unknown keys are refused from 3.`unknown_refused_from` on.

    `beside` are keys that clients put next to the object rather than into it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, defer_build=True)
    unknown_refused_from: ClassVar[int] = 0
    beside: ClassVar[tuple[str, ...]] = ()


class Answer(BaseModel):
    """An answer (or the object below its key). Handlers return plain dicts; this is what they are checked against."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, arbitrary_types_allowed=True, defer_build=True)


class OpenAnswer(Answer):
    """An answer that has further keys by nature (namespaced extensions)."""

    model_config = ConfigDict(extra="allow")


def _boolean(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower() if isinstance(value, (str, int)) else ""
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise PydanticCustomError("boolean", "{shown} is not a boolean", {"shown": repr(value)[:80]})


def _integer(value: Any) -> Any:
    if isinstance(value, str) and value.strip().isascii() and value.strip().lstrip("-").isdigit():
        return int(value.strip()) if len(value) < 20 else value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise PydanticCustomError("integer", "{shown} is not of type 'integer', 'string'", {"shown": repr(value)[:80]})


def _uuid(value: Any) -> Any:
    text = value.lower() if isinstance(value, str) else ""
    if len(text) == 32:
        text = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    if not is_id(text):
        raise PydanticCustomError("uuid", "{shown} is not a 'uuid'", {"shown": repr(value)[:80]})
    return text


def distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("distinct", "{shown} has non-unique elements", {"shown": repr(list(values))[:200]})
    return values


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def stamp(moment: datetime.datetime | str | None) -> str | None:
    """A time as answers have it: naive UTC with microseconds. A text is one already."""
    return moment.isoformat("T", "microseconds") if isinstance(moment, datetime.datetime) else moment


Boolean = Annotated[bool, BeforeValidator(_boolean, json_schema_input_type=bool | str | int)]
"""true/false, or one of the spellings 1, t, true, on, y, yes and their opposites, in any case."""
Integer = Annotated[int, BeforeValidator(_integer, json_schema_input_type=int | str)]
"""A whole number, or a string that holds one; never true or 1.5."""
Positive = Annotated[Integer, Field(ge=1, le=2**31 - 1)]
Gib = Positive
"""A size in GiB."""
Uuid = Annotated[str, BeforeValidator(_uuid)]
"""A UUID; handed on in its canonical form."""
Name = Annotated[str, BeforeValidator(_stripped), StringConstraints(max_length=255)]
"""A name of 0 to 255 characters."""
RequiredName = Annotated[str, BeforeValidator(_stripped), StringConstraints(min_length=1, max_length=255)]
Text = Annotated[str, StringConstraints(max_length=255)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Metadata = Annotated[dict[Key, Annotated[str, StringConstraints(max_length=255)]], Field(max_length=MOST_KEYS)]
"""Up to 255 characters for each key and value; keys not empty."""
SpecKey = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9\-_:. ]{1,255}$")]
_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?$"
# Not the format `date-time`: that one wants a zone, which Block Storage does not tell.
Time = Annotated[str | datetime.datetime, WithJsonSchema({"type": "string", "pattern": _TIME})]
"""A time in an answer: naive UTC with microseconds; handlers may leave datetime objects."""
