"""User messages in numbers and words that clients know, with nothing in them that is the operator's alone."""

from __future__ import annotations

from typing import Any

import pytest

from agent.base.errors import BrickyardError, Invalid
from agent.jobs.errors import JobDefect
from coordinator.scheduler.errors import NoPool
from coordinator.state import message_words
from coordinator.state.operations import Operation


def operation(kind: str, resource_type: str = "volume", **args: Any) -> Operation:
    made = object.__new__(Operation)
    for name, value in {"kind": kind, "resource_type": resource_type, "args": args}.items():
        object.__setattr__(made, name, value)
    return made


@pytest.mark.parametrize(
    ("work", "error", "event", "begins"),
    [
        (operation("create_volume"), NoPool(reasons="full"), "VOLUME_VOLUME_001_003",
         "schedule allocate volume:Could not find any available weighted backend. No pool of this site fits it now. "),
        (operation("create_volume"), Invalid(reason="broken"), "VOLUME_VOLUME_008_012",
         "create volume from backend storage:Driver failed to create the volume. broken"),
        (operation("create_volume", image={"id": "i"}), Invalid(reason="bad header"), "VOLUME_VOLUME_005_012",
         "copy image to volume:Driver failed to create the volume. bad header"),
        (operation("create_snapshot", "snapshot"), Invalid(reason="no"), "VOLUME_VOLUME_SNAPSHOT_009_013",
         "create snapshot:Snapshot failed to create. no"),
        (operation("something_new"), Invalid(reason="no"), "VOLUME_VOLUME_900_001",
         "something new:An unknown error occurred. no"),
    ],
)  # fmt: skip
def test_numbers_and_words(work: Operation, error: BrickyardError, event: str, begins: str) -> None:
    assert message_words.event(work, error) == event
    assert message_words.text(work, error).startswith(begins)


@pytest.mark.parametrize("error", [BrickyardError(reason="password=hunter2"), JobDefect(key="k", reason="hunter2")])
def test_what_nobody_expected_is_not_repeated(error: BrickyardError) -> None:
    work = operation("extend_volume")
    assert message_words.event(work, error) == "VOLUME_VOLUME_007_001"
    assert message_words.text(work, error) == "extend volume:An unknown error occurred."


def test_paths_and_addresses_of_the_site_are_left_out() -> None:
    error = Invalid(reason="/srv/volumes/volume-1: no answer from 192.0.2.7:3260; see https://images.example/a/b.raw")
    assert message_words.text(operation("extend_volume"), error).endswith(
        "(path): no answer from (address); see https://images.example/a/b.raw"
    )
