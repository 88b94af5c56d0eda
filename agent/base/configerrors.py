"""What is wrong in a configuration file, told with its line and a remedy. Loaded only when something is wrong."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from agent.base.configdoc import known_keys
from agent.base.redact import is_secret_name

_KEY = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\]|\\.)*\"|'[^']*')"
_ASSIGN = re.compile(rf"\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*=(.*)")
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*\]")
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)")

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (`file:line` or the `--set` given), the dotted key, what, what to do."""

    where: str
    key: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.key}: {self.problem}. {self.remedy}"


def not_toml(path: Path | None, text: str, failure: tomllib.TOMLDecodeError) -> Problem:
    """The problem of a file that is not TOML at all."""
    message = str(failure)
    found = _AT_LINE.search(message)
    line = int(found[1]) if found else max(1, text.count("\n"))
    reason = _AT_LINE.sub("", message).removesuffix(" (at end of document)")
    lines = text.splitlines()
    key = _ASSIGN.match(lines[line - 1]) if 0 < line <= len(lines) else None
    remedy = "Correct the line; strings need quotes, tables are written [name]."
    return Problem(f"{path}:{line}", key[1] if key else "the line", f"is not TOML: {reason}", remedy)


def explain(
    failure: ValidationError, model: type[BaseModel], *, raw: Mapping[str, Any], path: Path | None, text: str,
    origins: Mapping[Parts, str],
) -> list[Problem]:  # fmt: skip
    """Each finding of pydantic as a `Problem`, in the order of the file. `origins`: keys that `--set` wrote."""
    lines = key_lines(text)
    known = known_keys(model)
    found: list[tuple[int, Problem]] = []
    for error in failure.errors(include_url=False):
        parts = _parts(raw, _as_written(raw, error["loc"]), error["type"] == "missing")
        problem, remedy = _words(error, parts, known)
        line = _line(lines, parts)
        where = _set_origin(origins, parts) or (f"{path}:{line}" if path else "the defaults")
        found.append((line, Problem(where, ".".join(parts) or "the file", problem, remedy)))
    return [problem for _, problem in sorted(found, key=lambda pair: pair[0])]


def key_lines(text: str) -> dict[Parts, int]:
    """The line (from 1) of each key and table of a TOML text; entries of `[[lists]]` are counted from 0."""
    lines: dict[Parts, int] = {}
    table: Parts = ()
    counts: dict[Parts, int] = {}
    pending = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if pending:
            pending = _open_value(f"{pending}\n{line}")
        elif header := _HEADER.match(line):
            table = _table(header, counts)
            lines.setdefault(table, number)
        elif assign := _ASSIGN.match(line):
            lines.setdefault((*table, *_split(assign[1])), number)
            pending = _open_value(assign[2])
    return lines


def _table(header: re.Match[str], counts: dict[Parts, int]) -> Parts:
    parts: list[str] = []
    names = _split(header[2])
    for depth, name in enumerate(names, start=1):
        parts.append(name)
        here = tuple(parts)
        if depth == len(names) and header[1] == "[[":
            counts[here] = counts.get(here, -1) + 1
        if here in counts:
            parts.append(str(counts[here]))
    return tuple(parts)


def _open_value(text: str) -> str:
    """The text of a value that goes on in the next line, or nothing when it is whole."""
    try:
        tomllib.loads(f"value ={text}")
    except tomllib.TOMLDecodeError:
        return text
    return ""


def _split(dotted: str) -> Parts:
    parts: list[str] = []
    place: Any = tomllib.loads(f"{dotted} = 0")
    while isinstance(place, dict):
        name, place = next(iter(place.items()))
        parts.append(name)
    return tuple(parts)


def _as_written(raw: Mapping[str, Any], loc: Sequence[int | str]) -> list[int | str]:
    """With the table that was meant where the one of `NAME#POOL` was put together: the pool's own, or that of NAME."""
    written: list[int | str] = []
    place: Any = raw
    for depth, item in enumerate(loc):
        name, _, pool = str(item).partition("#")
        table = place.get(name) if isinstance(place, Mapping) else None
        pools = table.get("pools") if isinstance(table, Mapping) else None
        own = pools.get(pool or name) if isinstance(pools, Mapping) else None
        rest = loc[depth + 1 :]
        if isinstance(own, Mapping) and table is not None:
            common = not any(key in own for key in rest) and any(key in table for key in rest)
            return [*written, name, *(() if common else ("pools", pool or name)), *rest]
        written.append(item)
        place = place.get(item) if isinstance(place, Mapping) else None
    return written


def _parts(raw: Mapping[str, Any], loc: Sequence[int | str], missing: bool) -> Parts:
    """The key in the file that pydantic's `loc` means, without the names of union members that it mixes in."""
    place: Any = raw
    parts: list[str] = []
    for depth, item in enumerate(loc):
        if isinstance(place, Mapping) and item in place:
            place = place[str(item)]
        elif isinstance(place, (list, tuple)) and isinstance(item, int) and item < len(place):
            place = place[item]
        elif not (missing and depth == len(loc) - 1):
            continue
        parts.append(str(item))
    return tuple(parts)


def _line(lines: Mapping[Parts, int], parts: Parts) -> int:
    while parts and parts not in lines:
        parts = parts[:-1]
    return lines.get(parts, 1)


def _set_origin(origins: Mapping[Parts, str], parts: Parts) -> str | None:
    for length in range(len(parts), 0, -1):
        if parts[:length] in origins:
            return f"--set {'.'.join(parts[:length])}"
    return None


def _words(error: Any, parts: Parts, known: Sequence[Parts]) -> tuple[str, str]:
    kind, name = str(error["type"]), parts[-1] if parts else ""
    if kind == "extra_forbidden":
        siblings = sorted({key[len(parts) - 1] for key in known if _sibling(key, parts)})
        close = get_close_matches(name, siblings, n=1)
        if close:
            return "is not a known key", f"Did you mean {close[0]}?"
        return "is not a known key", f"Remove it; known here: {', '.join(siblings) or 'nothing'}."
    if kind == "missing":
        return "is missing", "Add it; the reference of the configuration describes it."
    problem = str(error["msg"]).removeprefix("Value error, ").rstrip(".")
    problem = problem[:1].lower() + problem[1:]
    given = error.get("input")
    if isinstance(given, (str, int, float)) and not any(map(is_secret_name, parts)):
        problem += f" (it is {str(given)[:80]!r})"
    return problem, "Correct the value; the reference of the configuration says what it may be."


def _sibling(key: Parts, parts: Parts) -> bool:
    """Whether a documented key (`*` stands for any name) is a neighbour of the given one."""
    if len(key) < len(parts) or key[len(parts) - 1] == "*":
        return False
    return all(want in ("*", have) for want, have in zip(key, parts[:-1], strict=False))
