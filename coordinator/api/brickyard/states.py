"""Which statuses an administrator may reset volumes and snapshots to: the words that `os-reset_status` takes."""

from __future__ import annotations

from typing import Any

from coordinator.api.call import Call
from coordinator.api.fields import Answer
from coordinator.api.route import Resource, get
from coordinator.operations.reset_status import SNAPSHOT_TARGETS, VOLUME_TARGETS


class StatesAnswer(Answer):
    """What each noun can be reset to; whether it may be just now is decided by what is attached to it."""

    volume: list[str]
    snapshot: list[str]


async def states(call: Call) -> dict[str, Any]:
    return {"volume": list(VOLUME_TARGETS), "snapshot": list(SNAPSHOT_TARGETS)}


def resource() -> Resource:
    """The route."""
    return Resource(
        "states",
        "Statuses that can be set by an administrator.",
        (
            get("", states, "volume_extension:volume_admin_actions:reset_status",
                "What volumes and snapshots can be reset to.", answer=StatesAnswer, answer_key="valid_states"),
        ),
        prefix="/brickyard/v1/states",
    )  # fmt: skip
