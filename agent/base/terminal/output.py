"""What a command answers, in the form that was asked for: table, json, ndjson or value.

A command returns a `Table` or a `Record` (or yields tables, for `--watch`); the decorator `shown` adds the options and
prints. JSON holds every field; a table and `value` hold the named columns.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import click

FORMS = ("table", "json", "ndjson", "value")
_SHOWN_KEY = "brickyard.form"
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Table:
    """Several things of one kind; `columns` are what people see of them."""

    rows: Sequence[Mapping[str, Any]]
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One thing; `columns` empty: people see all of it. `value` is what the form `value` prints without `--column`."""

    values: Mapping[str, Any]
    columns: tuple[str, ...] = ()
    value: str = "id"
    exit_code: int = 0


class Endless:
    """Frames of a display that goes on until Ctrl-C, which is its usual end."""

    def __init__(self, frames: Iterator[Table | Record]) -> None:
        self._frames = frames

    def __iter__(self) -> Iterator[Table | Record]:
        return self._frames

    def __next__(self) -> Table | Record:
        return next(self._frames)


def shown(function: F) -> F:
    """Adds `--output`, `--json` and `--column`, and prints what the command returns."""

    @functools.wraps(function)
    def command(*args: Any, output: str | None, as_json: bool, column: tuple[str, ...], **rest: Any) -> Any:
        form = "json" if as_json else output or "table"
        click.get_current_context().meta[_SHOWN_KEY] = form
        result = function(*args, **rest)
        if isinstance(result, (Table, Record)):
            emit(result, form, column)
            return result.exit_code if isinstance(result, Record) else 0
        if isinstance(result, Iterator):
            with suppress(KeyboardInterrupt) if isinstance(result, Endless) else nullcontext():
                _follow(result, form, column)
            return 0
        if result is None and form == "json":
            _write("{}")
        return result

    for option in (
        click.option("-c", "--column", multiple=True, metavar="NAME", help="Only this column; may be given often."),
        click.option("--json", "as_json", is_flag=True, help="The same as --output json."),
        click.option("-o", "--output", type=click.Choice(FORMS), help="Form of the output; default: table."),
    ):
        command = option(command)
    return command  # type: ignore[return-value]


def form() -> str:
    """The form that the running command was asked for."""
    return str(click.get_current_context().meta.get(_SHOWN_KEY, "table"))


def for_people() -> bool:
    """Whether a person reads: no JSON, and a terminal."""
    return form() == "table" and sys.stdout.isatty()


def emit(result: Table | Record, form: str, columns: tuple[str, ...] = ()) -> None:
    """Print a result on standard output."""
    known = _columns(result)
    missing = [name for name in columns if known and name not in known]
    if missing:
        raise click.UsageError(f"There is no column {missing[0]!r}; known: {', '.join(known)}.")
    if form in {"json", "ndjson"}:
        _emit_json(result, form, columns)
    elif isinstance(result, Record):
        _emit_record(result, form, columns)
    elif form == "value":
        for row in result.rows:
            _write("\t".join(plain(row.get(name)) for name in columns or result.columns))
    else:
        _draw(
            list(columns or result.columns), [[plain(r.get(n)) for n in columns or result.columns] for r in result.rows]
        )


def plain(value: Any) -> str:
    """A value for people: one line, without anything that a terminal would obey."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={plain(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(f"({plain(item)})" if isinstance(item, Mapping) else plain(item) for item in value)
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _columns(result: Table | Record) -> list[str]:
    if isinstance(result, Record):
        return list(result.values)
    return list(dict.fromkeys([*result.columns, *(name for row in result.rows for name in row)]))


def _emit_json(result: Table | Record, form: str, columns: tuple[str, ...]) -> None:
    rows = [result.values] if isinstance(result, Record) else list(result.rows)
    if columns:
        rows = [{name: row.get(name) for name in columns} for row in rows]
    if form == "ndjson":
        for row in rows:
            _write(json.dumps(row, default=str))
    else:
        _write(json.dumps(rows[0] if isinstance(result, Record) else rows, indent=2, default=str))


def _emit_record(record: Record, form: str, columns: tuple[str, ...]) -> None:
    if form == "value":
        names = columns or ((record.value,) if record.value in record.values else tuple(record.values))
        for name in names:
            _write(plain(record.values.get(name)))
        return
    names = columns or record.columns or tuple(record.values)
    _draw(["field", "value"], [[name, plain(record.values.get(name))] for name in names])


def _follow(frames: Iterator[Table | Record], form: str, columns: tuple[str, ...]) -> None:
    for frame in frames:
        if form == "table" and sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[2J")
        if form == "json":
            rows = frame.values if isinstance(frame, Record) else list(frame.rows)
            _write(json.dumps(rows, default=str))
        else:
            emit(frame, form, columns)
        sys.stdout.flush()


def _draw(header: list[str], rows: list[list[str]]) -> None:
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        return _draw_rich(header, rows)
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    for cells in [[name.upper() for name in header], *rows]:
        _write("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    return None


def _draw_rich(header: list[str], rows: list[list[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=SIMPLE_HEAD, pad_edge=False)
    for name in header:
        drawn.add_column(name, overflow="fold", no_wrap=name in {"id"})
    for row in rows:
        drawn.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console().print(drawn)


_STYLES = {
    **dict.fromkeys(("available", "in-use", "ok", "up", "done", "active", "attached", "enabled"), "green"),
    **dict.fromkeys(("error", "failed", "down", "error_deleting", "needs-attention", "bad"), "bold red"),
    **dict.fromkeys(("warning", "disabled", "stale", "missing", "waiting"), "yellow"),
}


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
