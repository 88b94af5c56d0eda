"""Each step of an operation as lines of a log, which may have a file of its own (`log.steps_file`)."""

from __future__ import annotations

from agent.base.log import STEPS, get_logger, has_steps_file, steps_are_told
from coordinator.state.operations import Operation

_log = get_logger(STEPS)


def tell(before: Operation | None, now: Operation) -> None:
    """A line for each step that has moved between two states of an operation, and one where the operation itself has.

    Results are those that the rows hold, which have no secrets.
    """
    if not steps_are_told():
        return
    say = _log.info if has_steps_file() else _log.debug
    known = before.steps if before is not None else {}
    # What one transaction has undone was undone from the last to the first.
    for name, entry in now.steps.items() if now.state == "running" else reversed(now.steps.items()):
        was = known.get(name, {})
        if (entry.get("state"), entry.get("attempt")) != (was.get("state"), was.get("attempt")):
            say("step", step=name, kind=now.kind, **{key: entry[key] for key in _SHOWN if entry.get(key) is not None})
    if before is None or before.state != now.state:
        error = now.error or {}
        say(
            "operation", kind=now.kind, state=now.state, epoch=now.epoch, step=now.step,
            code=error.get("code"), reason=error.get("message"),
        )  # fmt: skip


_SHOWN = ("state", "attempt", "host", "result")
