"""What operations do step by step, in a file of its own."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.base.log import STEPS, configure
from coordinator.operations.new_volume import NewVolume, accept_volume
from coordinator.state.operations import Operation
from tests.unit.coordinator.operations.support import REQUESTER, Site, site


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    configure("warning")
    root.handlers[:], root.level = before


async def made(here: Site, *, cancelled: bool = False) -> Operation:
    """The operation of a new volume, at its end."""
    new = NewVolume(size=1)
    operation, _ = await here.db.write(lambda conn: accept_volume(conn, REQUESTER, here.keys, new))
    here.engine.start(dataclasses.replace(operation, cancel_requested=cancelled))
    last = await here.engine.wait(operation.id, 60)
    assert last is not None
    return last


def lines(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    return [line for line in found if line["logger"] == STEPS]


async def test_each_step_with_its_result_and_nothing_in_the_log(tmp_path: Path) -> None:
    file, log = tmp_path / "steps.log", io.StringIO()
    configure("info", json=True, stream=log, steps_file=file)
    async with site(tmp_path) as here:
        operation = await made(here)
    told = lines(file.read_text())
    assert {line["request_id"] for line in told} == {"req-1"}
    assert {line["operation"] for line in told} == {operation.id}
    states = [(line["step"], line["state"]) for line in told if line["message"] == "step"]
    assert ("make", "running") in states
    assert states.index(("make", "running")) < states.index(("make", "done"))
    assert {name for name, state in states if state == "done"} == set(operation.steps)
    (done,) = [line for line in told if line["message"] == "step" and (line["step"], line["state"]) == ("make", "done")]
    assert done["result"]
    assert [line["state"] for line in told if line["message"] == "operation"] == ["running", "done"]
    assert lines(log.getvalue()) == []


async def test_what_is_undone_is_told_from_the_last_to_the_first(tmp_path: Path) -> None:
    file = tmp_path / "steps.log"
    configure("error", json=True, stream=io.StringIO(), steps_file=file)
    async with site(tmp_path) as here:
        operation = await made(here, cancelled=True)
    assert operation.state == "cancelled"
    told = lines(file.read_text())
    undone = [line["step"] for line in told if line.get("state") == "undone"]
    forward = [name for name in operation.steps if not name.endswith(".undo")]
    assert undone == [name for name in reversed(forward) if name in undone]
    failed = next(line for line in told if line["message"] == "operation" and line.get("code"))
    assert failed["code"] == (operation.error or {})["code"]
    assert failed["reason"]


@pytest.mark.parametrize("named", [False, True])
async def test_without_a_file_they_are_with_the_others(tmp_path: Path, named: bool) -> None:
    log = io.StringIO()
    configure("debug", json=True, stream=log, steps_file=tmp_path / "no" / "steps.log" if named else None)
    async with site(tmp_path) as here:
        await made(here)
    assert [line["state"] for line in lines(log.getvalue()) if line["message"] == "operation"] == ["running", "done"]
    assert ("can not be written" in log.getvalue()) == named


async def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "steps.log"
    configure("info", json=True, stream=io.StringIO(), steps_file=file)
    async with site(tmp_path) as here:
        await made(here)
        os.rename(file, tmp_path / "older")
        await made(here)
    assert lines(file.read_text())
