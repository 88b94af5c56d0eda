"""The whole tree of commands: loaded late, described, parsed in every form, with documented exit codes."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click
import pytest

from agent.base.errors import known_errors
from agent.base.terminal.entry import outcome
from agent.base.terminal.exitcodes import MEANINGS
from agent.base.terminal.output import FORMS
from agent.cli.main import cli as agent
from coordinator.cli.main import cli as brickyard
from coordinator.cli.service import service

ROOTS = {"brickyard": brickyard, "brickyard-agent": agent, "brickyard-coordinator": service}


def leaves(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from leaves(below, (*path, name))


ALL = {" ".join(path): (path, command) for name, root in ROOTS.items() for path, command in leaves(root, (name,))}
FORMED = [name for name, (_, command) in ALL.items() if any(option.name == "as_json" for option in command.params)]


@pytest.mark.parametrize("name", ALL)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, command = ALL[name]
    assert outcome(ROOTS[path[0]], path[0], [*path[1:], "--help"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Usage: {name}")
    assert (command.help or "").strip()
    bare = [option.name for option in command.params if isinstance(option, click.Option) and not option.help]
    assert not bare


# A verb of another name destroys something until it is said here that it does not.
HARMLESS = frozenset(
    """
    add-key adopted archive assignments attach attachments backup bundle change check completion connector create dev
    disable doctor enable evictions explain export extend facts grant import jobs join list log-level manage manageable
    move online-data-migrations read-only read-write reference register report retry rotate save serve set show
    support-bundle sync thaw token upgrade upload watch
    """.split()
)


@pytest.mark.parametrize("name", ALL)
def test_every_destructive_verb_shows_its_plan(name: str) -> None:
    path, command = ALL[name]
    options = {option.name for option in command.params}
    if path[-1] not in HARMLESS or options & {"yes", "replace", "cascade"}:
        assert "dry_run" in options


def test_no_word_is_called_harmless_that_is_none() -> None:
    assert {path[-1] for path, _ in ALL.values()} >= HARMLESS


@pytest.mark.parametrize("name", FORMED)
def test_every_verb_takes_every_form_and_fails_as_json(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong option is told as JSON on standard output, whatever the verb."""
    path, command = ALL[name]
    for form in FORMS:
        context = command.make_context(path[-1], [*wanted(command), "--output", form], resilient_parsing=True)
        assert context.params["output"] == form
    assert outcome(ROOTS[path[0]], path[0], [*path[1:], "--json", "--no-such-option"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


def wanted(command: click.Command) -> list[str]:
    return ["x" for item in command.params if isinstance(item, click.Argument) and item.required]


@pytest.mark.parametrize("name", [name for name in FORMED if name.startswith("brickyard ")])
def test_without_credentials_every_verb_says_so(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OS_AUTH_URL", raising=False)
    path, command = ALL[name]
    code = outcome(brickyard, "brickyard", [*path[1:], *arguments(command), "--json"])
    error = json.loads(capsys.readouterr().out)["error"]
    assert (code, error["code"]) == (3, "cli.no-credentials")
    assert "openrc" in error["hint"]


def arguments(command: click.Command) -> list[str]:
    """The least that the verb can be parsed with."""
    found = []
    for item in command.params:
        if item.required and isinstance(item, click.Option):
            found += [item.opts[0], "x"]
        elif item.required:
            found.append("1" if isinstance(item.type, click.IntRange) else __file__ if item.name == "file" else "x")
    return found


@pytest.mark.parametrize("name", ROOTS)
def test_each_command_says_its_version(name: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / name, "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}, version {metadata.version('brickyard')}\n", "")


def test_exit_codes_are_documented() -> None:
    for module in (
        "coordinator.cli.client.errors",
        "agent.server.prepare",
        "agent.server.errors",
        "coordinator.state.errors",
    ):
        importlib.import_module(module)
    assert not {code: error.exit_code for code, error in known_errors().items() if error.exit_code not in MEANINGS}


PROBE = """
import sys
from agent.base.terminal.entry import outcome
from {module} import {attribute} as command
assert outcome(command, "x", {arguments!r}) == 0
heavy = {{"asyncio", "aiohttp", "pydantic", "sqlalchemy", "rich", "cryptography", "structlog"}} & set(sys.modules)
print(sorted(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("module", "attribute", "arguments"),
    [
        ("coordinator.cli.main", "cli", ["--help"]),
        ("coordinator.cli.main", "cli", ["volume", "list", "--help"]),
        ("coordinator.cli.main", "cli", ["image", "create", "--help"]),
        ("agent.cli.main", "cli", ["--help"]),
        ("coordinator.cli.service", "service", ["--help"]),
    ],
)
def test_simple_calls_load_nothing_heavy(module: str, attribute: str, arguments: list[str]) -> None:
    program = PROBE.format(module=module, attribute=attribute, arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(brickyard, "brickyard", ["completion", shell]) == 0
    assert "_BRICKYARD_COMPLETE" in capsys.readouterr().out
