"""The systemd units: they parse, their programs exist, they are confined, and they agree with each other."""

from __future__ import annotations

import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
ANALYZE = shutil.which("systemd-analyze")
# In tenths, as systemd-analyze takes it: 20 is an exposure of 2.0.
EXPOSURE = {"brickyard-coordinator": 20, "brickyard-agent": 40, "brickyard-key": 20}

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def settings(unit: str) -> Iterator[tuple[str, str]]:
    for line in (UNITS / f"{unit}.service").read_text().splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            yield key, value


def test_every_unit_is_known_here() -> None:
    assert {path.stem for path in UNITS.glob("*.service")} == EXPOSURE.keys()


@needs_systemd
def test_units_verify(tmp_path: Path) -> None:
    for unit in EXPOSURE:
        text = (UNITS / f"{unit}.service").read_text()
        rendered = text.replace("/opt/brickyard/bin/", f"{ROOT}/.venv/bin/")
        (tmp_path / f"{unit}.service").write_text(rendered)
    for unit in EXPOSURE:
        done = subprocess.run(
            [str(ANALYZE), "verify", "--man=no", "--recursive-errors=no", str(tmp_path / f"{unit}.service")],
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "brickyard" not in done.stderr, done.stderr


@needs_systemd
@pytest.mark.parametrize("unit", sorted(EXPOSURE))
def test_exposure_stays_low(unit: str) -> None:
    command = [str(ANALYZE), "security", "--offline=yes", f"--threshold={EXPOSURE[unit]}", "--no-pager"]
    done = subprocess.run(
        [*command, str(UNITS / f"{unit}.service")], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, "\n".join(done.stdout.splitlines()[-1:]) + done.stderr


def test_programs_are_commands_of_this_project() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    for unit in ("brickyard-coordinator", "brickyard-agent"):
        program = dict(settings(unit))["ExecStart"].split()[0]
        assert program == f"/opt/brickyard/bin/{unit}"
        assert re.search(rf"^{unit} = ", pyproject, re.MULTILINE)


def test_users_and_folders_are_made() -> None:
    users = re.findall(r"^u (\S+)", (UNITS / "sysusers.conf").read_text(), re.MULTILINE)
    assert dict(settings("brickyard-coordinator"))["User"] in users
    assert "brickyard" in users
    folders = re.findall(r"^d (\S+)\s+(\d+)\s+(\S+)", (UNITS / "tmpfiles.conf").read_text(), re.MULTILINE)
    writable = dict(settings("brickyard-agent"))["ReadWritePaths"]
    assert (writable.split()[0], "0700", "brickyard") in folders


def test_the_key_that_is_made_is_the_key_that_is_loaded() -> None:
    loaded = dict(settings("brickyard-coordinator"))["LoadCredential"].partition(":")[2]
    assert dict(settings("brickyard-key"))["ConditionPathExists"] == f"!{loaded}"
    assert loaded in dict(settings("brickyard-key"))["ExecStart"]


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    words = shlex.split(dict(settings("brickyard-key"))["ExecStart"])
    words = [word.replace("/etc/brickyard", str(tmp_path)).replace("/opt/brickyard", sys.prefix) for word in words]
    made = []
    for _ in range(2):
        subprocess.run(words, check=True, timeout=600)
        made.append((tmp_path / "key-encryption-key").read_bytes())
    assert made[0] == made[1]
    assert stat.S_IMODE((tmp_path / "key-encryption-key").stat().st_mode) == 0o400


@pytest.mark.parametrize("name", ["remote", "ibm-z"])
def test_who_takes_disks_away_may_see_who_has_them_open(name: str) -> None:
    """The daemons `net` and `channel` are of use where these drop-ins are."""
    assert (
        "CapabilityBoundingSet=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH" in (UNITS / f"{name}.conf").read_text().splitlines()
    )
