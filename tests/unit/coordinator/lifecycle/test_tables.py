"""The transition tables: every status can be entered and left, and no event is spelled twice."""

import pytest

from coordinator.lifecycle.attachment import ATTACHMENT
from coordinator.lifecycle.image import IMAGE
from coordinator.lifecycle.operation import OPERATION, UNREACHABLE
from coordinator.lifecycle.snapshot import SNAPSHOT
from coordinator.lifecycle.table import NEW, PREVIOUS, SAME, Lifecycle, Rule
from coordinator.lifecycle.volume import VOLUME
from coordinator.operations.registry import workflows

ALL = [VOLUME, SNAPSHOT, IMAGE, ATTACHMENT, OPERATION]
FINAL = {"deleted", "done", "failed", "cancelled"}


@pytest.mark.parametrize("lifecycle", ALL, ids=lambda each: each.noun)
def test_rules_name_only_known_statuses(lifecycle: Lifecycle) -> None:
    for rule in lifecycle.rules:
        assert set(rule.sources) <= lifecycle.statuses | {NEW}, rule
        assert rule.target in lifecycle.statuses | {PREVIOUS, SAME}, rule


@pytest.mark.parametrize("lifecycle", ALL, ids=lambda each: each.noun)
def test_every_status_but_the_final_ones_has_a_way_out(lifecycle: Lifecycle) -> None:
    assert [status for status in lifecycle.statuses - FINAL if not lifecycle.ways_out(status)] == []


@pytest.mark.parametrize("lifecycle", ALL, ids=lambda each: each.noun)
def test_every_transient_status_ends_well_and_badly(lifecycle: Lifecycle) -> None:
    for status in lifecycle.transient:
        targets = {rule.target for rule in lifecycle.ways_out(status)}
        assert targets, f"{lifecycle.noun} can not leave {status}"


def test_previous_needs_something_remembered() -> None:
    for lifecycle in ALL:
        for rule in lifecycle.rules:
            if rule.target == PREVIOUS:
                for source in rule.sources:
                    entering = [r for r in lifecycle.rules if r.target == source]
                    assert any(r.remember for r in entering), f"{lifecycle.noun}: {rule.event} from {source}"


def test_an_event_has_one_rule() -> None:
    with pytest.raises(ValueError, match="two rules"):
        Lifecycle("thing", frozenset({"a"}), frozenset(), (Rule("go", (NEW,), "a"), Rule("go", ("a",), "a")))


def test_every_workflow_says_what_an_unreachable_agent_means() -> None:
    kinds = {kind for kind, _ in workflows(None).known}
    assert kinds <= UNREACHABLE.keys()
