"""The guard in front of os-brick's open verbs, function by function."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.connectors import _brick
from agent.privsep.errors import VerbRefused

ROOT = Path(__file__).parents[4]
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="filters count only when they belong to root")


@pytest.fixture(scope="module")
def filters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rootwrap")
    shutil.copy(ROOT / "rootwrap.d" / "os-brick.filters", folder)
    (folder / "os-brick.filters").chmod(0o644)
    folder.chmod(0o755)
    return folder


def test_a_listed_command_gets_its_full_path(filters: Path) -> None:
    argv = _brick.checked_command(("blockdev", "--flushbufs", "/dev/loop0"), {"timeout": 5}, filters)
    assert argv == ["/usr/sbin/blockdev", "--flushbufs", "/dev/loop0"]


@pytest.mark.parametrize(
    "command",
    [
        ("cat", "/etc/shadow"),
        ("privsep-helper", "--privsep_context", "os_brick.privileged.default"),
        ("tee", "-a", "/etc/passwd"),
        ("tee", "-a", "/sys/block/sda/device/../../../../etc/passwd"),
        ("blockdev", "--setro", "/dev/sda"),
        ("/tmp/blockdev", "--flushbufs", "/dev/sda"),
        ("sh", "-c", "id"),
        ("multipath", "-f", "-F"),
        ("blockdev", "--flushbufs", "/dev/../etc/shadow"),
        ("tee", "-a", "/sys/block/sda/device/delete\n"),
        (),
        (b"cat",),
    ],
)
def test_foreign_commands_are_refused(filters: Path, command: tuple[Any, ...]) -> None:
    with pytest.raises(VerbRefused):
        _brick.checked_command(command, {}, filters)


@pytest.mark.parametrize("option", ["shell", "cwd", "env_variables", "preexec_fn", "run_as_root", "root_helper"])
def test_foreign_options_are_refused(filters: Path, option: str) -> None:
    with pytest.raises(VerbRefused, match=option):
        _brick.checked_command(("multipathd", "show", "status"), {option: "x"}, filters)


def test_filters_that_others_may_write_do_not_count(filters: Path, tmp_path: Path) -> None:
    mine = tmp_path / "filters"
    shutil.copytree(filters, mine)
    (mine / "os-brick.filters").chmod(0o666)
    with pytest.raises(VerbRefused, match="root's alone"):
        _brick.checked_command(("multipathd", "show", "status"), {}, mine)


@given(st.one_of(st.text(), st.binary(), st.none(), st.sampled_from(["/etc/passwd", "/dev/disk/by-id/../../../etc/x"])))
def test_no_foreign_link_is_touched(value: Any) -> None:
    with pytest.raises(VerbRefused):
        _brick._unlink_root(value)
    with pytest.raises(VerbRefused):
        _brick._link_root("/dev/sda", value)
    with pytest.raises(VerbRefused):
        _brick._link_root(value, "/dev/disk/by-id/os-brick+dev+sda")
