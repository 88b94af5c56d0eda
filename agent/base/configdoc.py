"""The reference of a configuration, read from its models: every key with type, default and meaning."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from agent.base.reload import is_reloaded

_WORDS: dict[Any, str] = {
    str: "string", int: "integer", float: "number", bool: "true or false", bytes: "bytes",
    SecretStr: "string", SecretBytes: "string", Any: "any", types.NoneType: "nothing",
}  # fmt: skip
_LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its parts (`*` for a name or number that the operator chooses) and what the reference says."""

    parts: tuple[str, ...]
    type: str
    default: str
    description: str
    when: str = ""
    reloaded: bool = False

    @property
    def dotted(self) -> str:
        return ".".join("NAME" if part == "*" else part for part in self.parts)


def keys(
    model: type[BaseModel], prefix: tuple[str, ...] = (), when: str = "", *, reloaded: bool = False
) -> Iterator[Key]:
    """Every key of `model` and of the tables below it, in the order of the models."""
    for name, field in model.model_fields.items():
        here = (*prefix, field.alias or name)
        tables, live = list(_tables(field.annotation)), reloaded or is_reloaded(field)
        if not tables:
            words = type_words(field.annotation, field)
            yield Key(here, words, _default(field), field.description or "", when, live)
        for wild, table in tables:
            condition = _condition(table) if len(tables) > 1 else when
            if not table.model_fields:
                yield Key(here, "table without keys", "not set", field.description or "", condition, live)
            yield from keys(table, (*here, "*") if wild else here, condition, reloaded=live)


def known_keys(model: type[BaseModel]) -> list[tuple[str, ...]]:
    """The parts of every key, tables included."""
    found: dict[tuple[str, ...], None] = {}
    for key in keys(model):
        for length in range(1, len(key.parts) + 1):
            found.setdefault(key.parts[:length])
    return list(found)


def markdown(model: type[BaseModel]) -> str:
    """One table in Markdown: key, type, default, meaning."""
    rows = [
        "`↻`: a change is taken over at SIGHUP (`systemctl reload`); other changes wait for the next start.",
        "",
        "| Key | Type | Default | Meaning |",
        "|---|---|---|---|",
    ]
    for key in keys(model):
        meaning = f"{key.description} ({key.when})" if key.when else key.description
        cells = (f"`{key.dotted}`" + (" ↻" if key.reloaded else ""), key.type, key.default, meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def type_words(annotation: Any, field: FieldInfo | None = None) -> str:
    """A type in the words of an operator, with its limits."""
    words = _plain_type(annotation)
    limits = [
        f"{sign} {getattr(item, name)}"
        for item in (field.metadata if field else ())
        for name, sign in _LIMITS.items()
        if getattr(item, name, None) is not None
    ]
    return f"{words}, {' and '.join(limits)}" if limits else words


def _plain_type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _plain_type(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_plain_type(item) for item in arguments if item is not types.NoneType)
    if origin in (list, tuple, set, frozenset):
        return f"list of {_plain_type(arguments[0])}" if arguments else "list"
    if origin in (dict, Mapping):
        return f"table of {_plain_type(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, PurePath):
        return "path"
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _tables(annotation: Any) -> Iterator[tuple[bool, type[BaseModel]]]:
    """The models that a value may be; True when they stand below a name or number of the operator's."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield False, annotation
    elif origin is Annotated:
        yield from _tables(arguments[0])
    elif origin in (Union, types.UnionType):
        for item in arguments:
            yield from _tables(item)
    elif origin in (dict, Mapping):
        yield from ((True, table) for _, table in _tables(arguments[1]))
    elif origin in (list, tuple):
        yield from ((True, table) for _, table in _tables(arguments[0]))


def _condition(table: type[BaseModel]) -> str:
    """What tells this member of a union from the others: its fixed values."""
    fixed = [
        f"{name} = {get_args(field.annotation)[0]}"
        for name, field in table.model_fields.items()
        if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
    ]
    return f"when {fixed[0]}" if fixed else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None and not isinstance(field.default_factory, type):
        return "found on the host"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined:
        return "not set"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"`[{', '.join(repr(str(item)) for item in value)}]`"
    return f"`{value}`" if str(value) else '`""`'
