"""The installed commands: each starts, says its version, and refuses nonsense in words."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
COMMANDS = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["scripts"]
SERVICES = sorted(set(COMMANDS) - {"brickyard"})


def run(command: str, *words: str) -> subprocess.CompletedProcess[str]:
    path = Path(sys.executable).parent / command
    return subprocess.run([path, *words], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_version_and_what_there_is_not(command: str) -> None:
    assert (run(command, "--help").returncode, run(command, "--help").stdout.startswith("Usage:")) == (0, True)
    version = run(command, "--version")
    assert (version.returncode, version.stdout.split()[-1].count(".")) == (0, 2)
    for nonsense in ("--nonsense", "nonsense"):
        refused = run(command, nonsense)
        assert refused.returncode == 2
        assert nonsense in refused.stderr
        assert f"Run: {command} --help" in refused.stderr


@pytest.mark.parametrize("command", SERVICES)
def test_a_configuration_that_is_not_there_is_named(command: str) -> None:
    refused = run(command, "serve", "--config", "/nonexistent/brickyard.toml")
    assert refused.returncode == 2
    assert "/nonexistent/brickyard.toml" in refused.stderr
    assert "Traceback" not in refused.stderr
