"""What users read of an error names no host, pool, path or address of the site."""

from __future__ import annotations

import pytest

from agent.base.errors import BrickyardError, Invalid, Remote
from coordinator.operations.delete_cascade import SnapshotsKept
from coordinator.operations.errors import UndoFailed, WaitedTooLong
from coordinator.scheduler.errors import NoPool, PoolsAway
from coordinator.state import outward

_REASONS = "host-a@files#x has 3 GiB [CapacityFilter]; host-b (2 pools) lies in zone2 [AvailabilityZoneFilter]"


@pytest.mark.parametrize("kind", [NoPool, PoolsAway])
def test_of_placing_the_rules_alone(kind: type[NoPool]) -> None:
    sentence, hint = outward.told(kind(reasons=_REASONS))
    assert sentence == "No pool of this site fits it now [AvailabilityZoneFilter, CapacityFilter]."
    assert "whoever runs the site" in hint
    assert outward.told(kind(reasons="no host is enrolled"))[0] == "No pool of this site fits it now."


def test_a_host_is_not_named_nor_is_its_command_a_remedy() -> None:
    sentence, hint = outward.told(WaitedTooLong(host="host-a", seconds=600))
    assert sentence == "Host (host) could not be reached for 600 s."
    assert hint == "Try again later, or ask whoever runs the site."


def test_of_an_error_of_another_release_the_names_are_taken_out() -> None:
    told = {"code": "newer.code", "message": "Host host-a and host-ab: files failed.", "hint": "Ask host-a.",
            "context": {"host": "host-a", "backend": "files", "pool": None}}  # fmt: skip
    sentence, hint = outward.told(Remote(body=told))
    assert sentence == "Host (host) and host-ab: (host) failed."
    assert hint == "Try again later, or ask whoever runs the site."


def test_the_stored_form_keeps_its_code_and_loses_its_values() -> None:
    stored = WaitedTooLong(host="node-7", seconds=600).to_body()
    shown = outward.body(stored)
    assert (shown["code"], shown["status"], shown["context"]) == (stored["code"], stored["status"], {})
    assert "node-7" not in str(shown)
    assert outward.body(Invalid(reason="bad header").to_body())["message"] == "bad header"
    assert outward.body(BrickyardError(reason="hunter2").to_body())["message"] == "An unknown error occurred."


def test_what_an_error_repeats_of_others_is_told_as_they_would_be() -> None:
    away, defect = WaitedTooLong(host="node-7", seconds=600), BrickyardError(reason="hunter2")
    both = UndoFailed(
        cause=str(away), cause_told=outward.sentence(away), step="make", undo_cause=str(defect),
        undo_cause_told=outward.sentence(defect), operation="o1",
    )  # fmt: skip
    assert "node-7" in str(both)
    shown = outward.body(both.to_body())["message"]
    assert shown == (
        "Host (host) could not be reached for 600 s. Undoing the finished steps failed too, at step make: "
        "An unknown error occurred."
    )
    kept = SnapshotsKept(
        id="v1", count=1, reasons="s1: Back end ssd of node-7 failed",
        reasons_told=outward.without("s1: Back end ssd of node-7 failed", ("node-7", "ssd", None)),
    )  # fmt: skip
    assert outward.told(kept)[0].endswith("could not be deleted: s1: Back end (host) of (host) failed.")


def test_what_is_waited_for() -> None:
    assert outward.waiting("outcome_unknown: host node-7.example can not be reached") == (
        "outcome_unknown: host (host) can not be reached"
    )
