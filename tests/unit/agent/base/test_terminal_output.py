"""Forms of output: what people and programs get for the same result."""

from __future__ import annotations

import json

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.terminal.entry import outcome
from agent.base.terminal.output import FORMS, Record, Table, emit, plain, shown
from agent.base.terminal.sizes import duration, size

ROWS = [{"id": "a", "name": None, "size": 1, "more": {"x": 1}}, {"id": "bb", "name": "n", "size": 20}]
TABLE = Table(ROWS, ("id", "name", "size"))
GOLDEN = {
    "table": "ID  NAME  SIZE\na         1\nbb  n     20\n",
    "value": "a\t\t1\nbb\tn\t20\n",
    "ndjson": '{"id": "a", "name": null, "size": 1, "more": {"x": 1}}\n{"id": "bb", "name": "n", "size": 20}\n',
}


@pytest.mark.parametrize("form", GOLDEN)
def test_tables_look_as_they_always_did(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    emit(TABLE, form)
    assert capsys.readouterr().out == GOLDEN[form]


def test_json_holds_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    emit(TABLE, "json")
    assert json.loads(capsys.readouterr().out) == list(TABLE.rows)


def test_an_empty_table_has_a_header_and_empty_json(capsys: pytest.CaptureFixture[str]) -> None:
    emit(Table([], ("id",)), "table")
    emit(Table([], ("id",)), "json")
    assert capsys.readouterr().out == "ID\n[]\n"


def test_a_record_gives_its_id_as_value_or_the_columns_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    record = Record({"id": "a", "name": "n", "flag": True})
    emit(record, "value")
    emit(record, "value", ("name", "flag"))
    emit(record, "table", ("flag",))
    assert capsys.readouterr().out == "a\nn\nyes\nFIELD  VALUE\nflag   yes\n"


def test_an_unknown_column_is_told_with_those_there_are() -> None:
    with pytest.raises(click.UsageError, match=r"'nope'; known: id, name, size, more"):
        emit(TABLE, "table", ("nope",))


@given(st.text())
def test_nothing_that_a_terminal_obeys_reaches_it(text: str) -> None:
    assert plain(text).isprintable()


@pytest.mark.parametrize(("count", "words"), [(0, "0 B"), (1536, "1.5 KiB"), (1 << 40, "1.0 TiB")])
def test_sizes(count: int, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0s"), (187, "3m07s"), (7500, "2h05m")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@click.group()
def tool() -> None:
    pass


@tool.command()
@shown
def rows() -> Table:
    return TABLE


@tool.command()
@shown
def nothing() -> None:
    return None


@tool.command()
@shown
def frames() -> object:
    return iter([TABLE, TABLE])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_can_be_asked_for(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(tool, "tool", ["rows", "--output", form]) == 0
    assert capsys.readouterr().out


def test_json_of_nothing_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(tool, "tool", ["nothing", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {}


def test_watching_gives_one_document_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(tool, "tool", ["frames", "--json"]) == 0
    assert [len(json.loads(line)) for line in capsys.readouterr().out.splitlines()] == [2, 2]
