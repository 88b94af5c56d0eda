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
    files: dict[str, str] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        files[path.stem] = files.get(path.stem, "") + path.read_text()  # a unit test may have the name of a kernel test
    suites = {path.stem: path.read_text() for path in (ROOT / "tests" / "support").glob("*_suite.py")}
    for name, text in files.items():
        files[name] = "".join([text, *(more for suite, more in suites.items() if f"support.{suite} import *" in text)])
    cells = [way.get(key, ()) for way in table["way"] for key in table["operations"]]
    named = {name for cell in cells if not isinstance(cell, str) for name in cell}
    assert named
    # A test of another file is one of this, too, where it gets its name here.
    found = {name: rf"^(?:(?:async )?def )?{name.split('::')[1]}\b" for name in named}
    unknown = [name for name in named if not re.search(found[name], files.get(name.split("::")[0], ""), re.MULTILINE)]
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
    assert hardware._cell("there is none", run) == "—"
    (tmp_path / "junit.xml").write_text(REPORT.replace('<failure message="no"/>', ""))
    hardware.record([tmp_path / "junit.xml"])
    assert json.loads((tmp_path / "run.json").read_text())["test_a::test_one"] == "passed"


def test_what_has_no_meaning_says_why_once() -> None:
    way = {"name": "A file", "lost": "it is here", "attach": ["test_a::test_two"], "back": "it is here", "swap": "no"}
    assert list(hardware._meaningless(way, ["attach", "lost", "swap", "back"])) == [
        "- A file: lost, back: it is here.",
        "- A file: swap: no.",
    ]
    assert hardware._tests(way, ["attach", "lost"]) == "- A file: `test_a::test_two`."
