"""What a job kind consists of, and what its handler is given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from agent.jobs.errors import SecretMissing
from agent.wire.jobs import Progress, Wire, WireSecret

if TYPE_CHECKING:
    from agent.jobs.services import Services

Lane = Literal["quick", "heavy"]
Checkpoint = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a job holds while it runs: `exclusive` alone, `shared` together with other readers.

    The first exclusive name is also held by a file lock that the job's tools inherit.
    """

    exclusive: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


@dataclass(slots=True)
class Context:
    """One run of a job as its handler sees it.

    `checkpoint` is what `save` stored last, perhaps in an earlier run; `lock_fd` goes to every tool started;
    `cancel` is set when the job is no longer wanted (its task is cancelled too).
    """

    key: str
    services: Services
    report: Callable[[Progress], None]
    save: Callable[[Checkpoint], Awaitable[None]]
    secrets: Mapping[str, WireSecret] = field(default_factory=dict, repr=False)
    checkpoint: Checkpoint | None = None
    cancel: asyncio.Event = field(default_factory=asyncio.Event)
    lock_fd: int | None = None

    def secret(self, name: str) -> WireSecret:
        """A secret of the job; SecretMissing when it was not posted."""
        found = self.secrets.get(name)
        if found is None:
            raise SecretMissing(kind=self.key, names=name)
        return found


async def _leave_nothing(context: Context, args: Any) -> None:
    """For kinds whose work is whole or absent."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table of kinds.

    `run` does the work and returns its result; it looks at the host first, as it may be the second run. `abandon`
    removes what was half made after a cancel or a lasting failure; where that comes too late, it returns the result
    and the job counts as done. It has no secrets after a restart. `secrets` names those that must be posted.
    """

    name: str
    run: Callable[[Context, Any], Awaitable[Wire | None]]
    needs: Callable[[Any], Needs]
    abandon: Callable[[Context, Any], Awaitable[Wire | None]] = _leave_nothing
    secrets: Callable[[Any], frozenset[str]] = lambda args: frozenset()
    lane: Lane = "quick"
    versions: frozenset[int] = frozenset({1})
