"""The page of what was seen on which hardware: the table of docs/hardware.toml, filled from the recorded run."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
RUN = HERE / "hardware-run.json"
_WORDS = """# Hardware: what was seen working, and where

The kernel tests run on Debian's kernel (see [contributing](../../CONTRIBUTING.md#kernel-tests)): as user-mode Linux,
compiled from its source (6.12), where they need no more, else the stock one (6.1) in emulated machines. There are the
kernel's own drivers, device-mapper, targets and initiators, udev, and the real tools; what lies behind is software,
too. **yes**: the tests named below passed in the recorded run. **failed**: they did not. **not run**: they were not
part of it. **—**: it has no meaning there, as is said below. Empty: no test shows it.
"""


def page() -> str:
    """The whole page."""
    table = tomllib.loads((HERE / "hardware.toml").read_text())
    run: dict[str, str] = json.loads(RUN.read_text()) if RUN.exists() else {}
    operations = table["operations"]
    rows = [f"| Way | On | {' | '.join(operations)} |", "|---" * (len(operations) + 2) + "|"]
    rows += [_row(way, operations, run) for way in table["way"]]
    shown = ["## The tests behind it\n", *(_tests(way, operations) for way in table["way"])]
    meaningless = [line for way in table["way"] for line in _meaningless(way, operations)]
    without = ["## What has no meaning\n", *meaningless, ""] if meaningless else []
    untried = ["## Not exercised at all\n", *(f"- {each['what']}: {each['why']}." for each in table["untried"])]
    simulated = [f"- {each['what']}: {each['why']}." for each in table.get("simulated", [])]
    only = ["## Only on a simulator\n", *simulated, ""] if simulated else []
    return "\n".join([_WORDS, *rows, "", *shown, "", *without, *only, *untried, ""])


def _row(way: dict[str, Any], operations: Iterable[str], run: dict[str, str]) -> str:
    cells = [_cell(way.get(operation, ()), run) for operation in operations]
    return f"| {way['name']} | {way['on']} | {' | '.join(cells)} |"


def _cell(names: Iterable[str] | str, run: dict[str, str]) -> str:
    if isinstance(names, str):
        return "—"
    outcomes = {run.get(name, "missing") for name in names}
    if not outcomes:
        return ""
    return "yes" if outcomes == {"passed"} else "failed" if "failed" in outcomes else "not run"


def _tests(way: dict[str, Any], operations: Iterable[str]) -> str:
    told = (way.get(operation, ()) for operation in operations)
    names = dict.fromkeys(name for names in told if not isinstance(names, str) for name in names)
    return f"- {way['name']}: {', '.join(f'`{name}`' for name in names)}."


def _meaningless(way: dict[str, Any], operations: Iterable[str]) -> Iterator[str]:
    """One line for each reason: operations that a way can not meet, since a text stands in the place of tests."""
    reasons: dict[str, list[str]] = {}
    for operation in operations:
        if isinstance(why := way.get(operation, ()), str):
            reasons.setdefault(why, []).append(operation)
    for why, its in reasons.items():
        yield f"- {way['name']}: {', '.join(its)}: {why}."


def outcomes(reports: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """`module::test` and passed, failed or skipped, from pytest's own reports; one of several parameters may fail."""
    for report in reports:
        for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314 - our own report
            module = case.get("classname", "").rpartition(".")[2]
            name = case.get("name", "").partition("[")[0]
            kinds = {child.tag for child in case}
            outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
            yield f"{module}::{name}", outcome


def record(reports: Iterable[Path]) -> None:
    """Merge reports into the recorded run: a test counts as passed when it passed with all of its parameters."""
    worst = {"passed": 0, "skipped": 1, "failed": 2}
    found: dict[str, str] = {}
    for name, outcome in outcomes(reports):
        found[name] = max(found.get(name, "passed"), outcome, key=worst.__getitem__)
    run = (json.loads(RUN.read_text()) if RUN.exists() else {}) | found
    RUN.write_text(json.dumps(dict(sorted(run.items())), indent=1) + "\n")


if __name__ == "__main__":
    record(Path(name) for name in sys.argv[1:])
