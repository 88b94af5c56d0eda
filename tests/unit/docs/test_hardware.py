"""The page on hardware tells what the recorded run says, and names tests that exist."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from docs import hardware

ROOT = Path(__file__).parents[3]
REPORT = """<testsuites><testsuite>
<testcase classname="tests.kernel.test_a" name="test_one[luks1]"/>
<testcase classname="tests.kernel.test_a" name="test_one[luks2]"><failure message="no"/></testcase>
<testcase classname="tests.kernel.test_a" name="test_two"><properties/></testcase>
<testcase classname="tests.kernel.test_a" name="test_three"><skipped/></testcase>
</testsuite></testsuites>"""


def test_every_test_that_is_named_exists() -> None:
    table = tomllib.loads((ROOT / "docs/hardware.toml").read_text())
    files = {path.stem: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    suites = {path.stem: path.read_text() for path in (ROOT / "tests" / "support").glob("*_suite.py")}
    for name, text in files.items():
        files[name] = "".join([text, *(more for suite, more in suites.items() if f"support.{suite} import *" in text)])
    named = {name for way in table["way"] for key in table["operations"] for name in way.get(key, ())}
    assert named
    unknown = [
        name for name in named if not re.search(rf"def {name.split('::')[1]}\b", files.get(name.split("::")[0], ""))
    ]
    assert not unknown
    known = {"name", "on", *table["operations"]}
    assert not [key for way in table["way"] for key in way if key not in known]


def test_a_test_passed_when_it_passed_with_all_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "RUN", tmp_path / "run.json")
    (tmp_path / "junit.xml").write_text(REPORT)
    hardware.record([tmp_path / "junit.xml"])
    run = json.loads((tmp_path / "run.json").read_text())
    assert run == {"test_a::test_one": "failed", "test_a::test_three": "skipped", "test_a::test_two": "passed"}
    assert hardware._cell(["test_a::test_two"], run) == "yes"
    assert hardware._cell(["test_a::test_two", "test_a::test_one"], run) == "failed"
    assert hardware._cell(["test_a::test_two", "test_a::test_three"], run) == "not run"
    assert hardware._cell([], run) == ""
    (tmp_path / "junit.xml").write_text(REPORT.replace('<failure message="no"/>', ""))
    hardware.record([tmp_path / "junit.xml"])
    assert json.loads((tmp_path / "run.json").read_text())["test_a::test_one"] == "passed"
