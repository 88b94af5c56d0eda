"""Running a command: whatever goes wrong becomes a sentence, a remedy and a documented exit code, never a traceback."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from agent.base.errors import BrickyardError
from agent.base.terminal.exitcodes import BROKEN_PIPE, DEFECT, FAILED, INTERRUPTED, USAGE

_JSON = {"json", "ndjson"}


def run(command: click.Command, name: str) -> NoReturn:
    """Run the command with this process's arguments, and end the process."""
    code = outcome(command, name, sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _reader_gone()
    sys.exit(code)


def outcome(command: click.Command, name: str, arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code. Errors are told on stderr, and as JSON where JSON was asked for."""
    as_json, output = wants_json(arguments), sys.stdout
    try:
        result = command.main(list(arguments), prog_name=name, standalone_mode=False)
    except click.UsageError as error:
        return _tell(_body("usage", error.format_message(), _usage_hint(error, name)), USAGE, as_json)
    except click.ClickException as error:
        return _tell(_body("failed", error.format_message()), FAILED, as_json)
    except (click.Abort, KeyboardInterrupt):
        return _tell(_body("interrupted", "Interrupted."), INTERRUPTED, as_json)
    except SystemExit:
        # click ends the process itself when nobody reads any more, and wraps what is left of the output.
        if sys.stdout is not output:
            return BROKEN_PIPE
        raise
    except Exception as error:  # noqa: BLE001 - a person at a terminal gets a sentence, not a traceback
        return told(error, as_json=as_json)
    return result if isinstance(result, int) and not isinstance(result, bool) else 0


def told(error: Exception, *, as_json: bool = False) -> int:
    """Tell on stderr what went wrong in a command; its exit code."""
    if isinstance(error, BrickyardError):
        return _tell(error.to_body(), error.exit_code, as_json)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return _tell(_body("os-error", f"{where}{error.strerror or error}."), FAILED, as_json)
    return _tell(_defect(error), DEFECT, as_json)


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether these arguments ask for JSON, however broken the rest of them may be."""
    for at, item in enumerate(arguments):
        if item == "--":
            return False
        if item == "--json" or (item.startswith("--output=") and item.partition("=")[2] in _JSON):
            return True
        if item in {"--output", "-o"} and at + 1 < len(arguments) and arguments[at + 1] in _JSON:
            return True
    return False


def _body(code: str, message: str, hint: str = "") -> dict[str, Any]:
    return {"code": code, "message": message, "hint": hint}


def _usage_hint(error: click.UsageError, name: str) -> str:
    path = error.ctx.command_path if error.ctx is not None else name
    return "" if "--help" in error.format_message() else f"Run: {path} --help"


def _defect(error: Exception) -> dict[str, Any]:
    if os.environ.get("BRICKYARD_TRACEBACK"):
        sys.excepthook(type(error), error, error.__traceback__)
    hint = "This is a defect; please report it with what BRICKYARD_TRACEBACK=1 shows in addition."
    return _body("internal", f"The command failed: {type(error).__name__}: {error}", hint)


def _tell(body: dict[str, Any], code: int, as_json: bool) -> int:
    if as_json:
        line = json.dumps({"error": {**body, "exit_code": code}}, default=str)
        sys.stderr.write(line + "\n")
        if not sys.stdout.isatty():
            sys.stdout.write(line + "\n")
        return code
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    sys.stderr.write(f"{click.style('Error:', fg='red', bold=True) if colour else 'Error:'} {body['message']}\n")
    if body["hint"]:
        sys.stderr.write(f"{body['hint']}\n")
    return code


def _reader_gone() -> int:
    """Nobody reads any more (`| head`): say nothing, and keep the interpreter from saying something at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
