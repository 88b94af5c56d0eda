"""The shape of a transition table: `{(status, event): new status}`, walked by tests and drawn in the docs.

A table is data: `coordinator.state.transition.move` turns one entry into one conditional UPDATE, the only way a status
moves. `PREVIOUS` as a target means the status remembered when the transient one was entered, `SAME` that the row stays
in the status that it must be in: a change that needs it, against all that would move it at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

NEW = ""
PREVIOUS = "<previous>"
SAME = "<same>"


@dataclass(frozen=True, slots=True)
class Rule:
    """`event` moves a resource from one of `sources` to `target`; `remember` keeps the old status for `PREVIOUS`.

    `alters`: it leads to other data, another size, or another owner; what others are cloned from refuses it.
    """

    event: str
    sources: tuple[str, ...]
    target: str
    help: str = ""
    remember: bool = False
    alters: bool = False


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """All rules of one noun. `stable` needs nobody; each `transient` status is owned by an operation."""

    noun: str
    stable: frozenset[str]
    transient: frozenset[str]
    rules: tuple[Rule, ...]
    by_event: dict[str, Rule] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_event: dict[str, Rule] = {}
        for rule in self.rules:
            if rule.event in by_event:
                raise ValueError(f"{self.noun}: event {rule.event!r} has two rules")
            by_event[rule.event] = rule
        object.__setattr__(self, "by_event", by_event)

    @property
    def statuses(self) -> frozenset[str]:
        return self.stable | self.transient

    def rule(self, event: str) -> Rule:
        """The rule of an event; KeyError for an event that the table does not have."""
        return self.by_event[event]

    def ways_out(self, status: str) -> tuple[Rule, ...]:
        return tuple(rule for rule in self.rules if status in rule.sources)

    def events(self) -> Iterable[str]:
        return self.by_event.keys()
