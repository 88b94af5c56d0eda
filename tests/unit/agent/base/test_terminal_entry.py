"""Errors of commands: a sentence, a remedy, the documented exit code, JSON where JSON was asked for."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from agent.base.errors import Conflict, NotFound
from agent.base.terminal.entry import outcome, wants_json
from agent.base.terminal.exitcodes import MEANINGS
from agent.base.terminal.group import LazyGroup
from agent.base.terminal.output import shown


class Gone(NotFound):
    code = "test.terminal-gone"
    sentence = "{what} is gone."
    hint = "Look for {what} elsewhere."


FAILURES: dict[str, tuple[BaseException, int]] = {
    "ours": (Gone(what="it"), 4),
    "conflict": (Conflict(reason="No."), 5),
    "usage": (click.UsageError("Not so."), 2),
    "interrupt": (KeyboardInterrupt(), 130),
    "abort": (click.Abort(), 130),
    "file": (FileNotFoundError(2, "No such file or directory", "/nowhere"), 1),
    "defect": (ZeroDivisionError("division by zero"), 70),
}


@click.command()
@click.argument("which")
@shown
def fails(which: str) -> None:
    raise FAILURES[which][0]


@pytest.mark.parametrize("which", FAILURES)
def test_an_error_is_a_sentence_on_stderr(which: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(fails, "fails", [which]) == FAILURES[which][1]
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.lstrip("\n").startswith("Error: ")
    assert "Traceback" not in said.err


@pytest.mark.parametrize("which", FAILURES)
def test_an_error_under_json_is_json_on_both(which: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = outcome(fails, "fails", [which, "--json"])
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads(said.err)
    error = json.loads(said.out)["error"]
    assert error["exit_code"] == code
    assert error["message"]
    assert code in MEANINGS


def test_the_remedy_follows_the_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    outcome(fails, "fails", ["ours"])
    assert capsys.readouterr().err == "Error: it is gone.\nLook for it elsewhere.\n"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["list", "--json"], True),
        (["list", "--output=ndjson"], True),
        (["list", "-o", "json"], True),
        (["list", "-o", "table"], False),
        (["list", "-o"], False),
        (["show", "--", "--json"], False),
    ],
)
def test_json_is_noticed_before_arguments_are_understood(arguments: list[str], wanted: bool) -> None:
    assert wants_json(arguments) is wanted


def test_a_wrong_command_under_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    group = LazyGroup("tool", lazy={"volume": ("nowhere:nothing", "Never imported.")})
    assert outcome(group, "tool", ["volumes", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["message"] == "There is no command 'volumes'. Did you mean volume?"


def test_help_imports_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    group = LazyGroup("tool", lazy={"volume": ("nowhere:nothing", "Never imported.")})
    assert outcome(group, "tool", ["--help"]) == 0
    assert "Never imported." in capsys.readouterr().out


def test_a_reader_that_goes_away_is_no_error() -> None:
    program = (
        "import click; from agent.base.terminal.entry import run\n"
        "@click.command()\ndef much() -> None:\n    for _ in range(100000): click.echo('x' * 80)\n"
        "run(much, 'much')\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(20) == 141
