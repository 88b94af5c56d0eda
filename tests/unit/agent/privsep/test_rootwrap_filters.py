"""The filters for sudo: exactly our two daemons can be started, and nothing beside them."""

from __future__ import annotations

import configparser
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent.privsep import noeventlet

ROOT = Path(__file__).parents[4]
PYTHON = "/opt/brickyard/bin/python3"


def _helper(context: str = "agent.privsep.contexts.block", socket: str = "/tmp/tmpab_c1/privsep.sock") -> list[str]:
    options = ["--privsep_context", context, "--privsep_sock_path", socket]
    return [PYTHON, "-I", "-m", "agent.privsep.helper", *options]


@pytest.fixture(scope="module")
def filters(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("filters")
    shutil.copy(ROOT / "rootwrap.d" / "brickyard.filters", folder)
    with noeventlet.unmentioned():
        from oslo_rootwrap import wrapper
    return list(wrapper.load_filters([str(folder)]))


@pytest.mark.parametrize("context", ["block", "crypt", "net", "lvm", "channel", "ceph"])
def test_our_daemons_are_allowed(filters: list[Any], context: str) -> None:
    command = _helper(f"agent.privsep.contexts.{context}")
    assert any(found.match(command) for found in filters if found.name != "privsep-helper")


@pytest.mark.parametrize(
    "command",
    [
        _helper("os_brick.privileged.default"),
        _helper("agent.privsep.contexts.other"),
        _helper("agentXprivsep.contexts.block"),
        _helper(socket="/tmp/a/../../etc/privsep.sock"),
        _helper(socket="/etc/privsep.sock"),
        [*_helper(), "--config-file", "/tmp/x"],
        [PYTHON, "-c", "print()"],
        [PYTHON, "-I", "-m", "http.server"],
        ["cat", "/etc/shadow"],
    ],
)
def test_nothing_else_is(filters: list[Any], command: list[str]) -> None:
    assert not [found.name for found in filters if found.match(command)]


def test_the_built_in_filter_finds_no_program(filters: list[Any]) -> None:
    config = configparser.RawConfigParser()
    config.read(ROOT / "rootwrap.d" / "conf" / "rootwrap.conf")
    folders = config.get("DEFAULT", "exec_dirs").split(",")
    assert all(Path(folder).is_absolute() and folder.startswith("/opt/brickyard/") for folder in folders)
    assert not [found for found in filters if found.match(["privsep-helper"]) and found.get_exec(exec_dirs=folders)]
