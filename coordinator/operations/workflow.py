"""What a workflow is: named steps, each a piece of one transaction, a job on a host, or a wait for this process.

All functions here are plain and synchronous and get the `Connection` of the engine's fenced transaction, so that what a
step writes and the fact that it is done commit together. Step names and result shapes are frozen per (kind, version).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from agent.base.errors import BrickyardError
from agent.wire.jobs import JobArgs, WireSecret
from coordinator.state.operations import Operation

Result = dict[str, Any]
LocalRun = Callable[[Connection, Operation], Result | None]
Ended = Callable[[Connection, Operation], None]
Failed = Callable[[Connection, Operation, BrickyardError], None]


@dataclass(frozen=True, slots=True)
class JobCall:
    """One job to be done by a host. Secrets stay in memory.

    `shared`: it works on a back end that other hosts serve too, so that one of them may have to do it instead.
    `late` fetches further secrets, each time that the job is posted: those that another service has to be asked for.
    """

    host_id: str
    args: JobArgs
    secrets: Mapping[str, WireSecret] = field(default_factory=dict, repr=False)
    shared: bool = False
    late: Callable[[], Awaitable[Mapping[str, WireSecret]]] | None = field(default=None, repr=False)


CallBuilder = Callable[[Connection, Operation], JobCall | None]


@dataclass(frozen=True, slots=True)
class LocalStep:
    """Runs inside the transaction that records it. `undo` must be right when run once after a finished `run`."""

    name: str
    run: LocalRun
    undo: LocalRun | None = None


@dataclass(frozen=True, slots=True)
class JobStep:
    """Runs on a host. `call` (and `undo`) return None when there is nothing to do.

    `retry_from` names an earlier step to go back to after a temporary failure (its work is made anew).
    `again_on` holds error codes after which going back helps, though the host itself sees nothing temporary in them.
    `elsewhere` names the step to go back to when the job was provably not delivered.
    `answers` holds error codes that are an answer too: the step is done, with the result `{"refused": code}`.
    `final`: what it did stays. When the host says that it was done although the operation was to be undone, the
    operation goes on; after an error whose code is in `unclear` not even the host knows, and a person has to look.
    `pinned`: what the job says is stored when it is first given out, and said again whenever it is posted anew; for
    calls that are made from rows which may change meanwhile.
    `gone_is_done`: on a host that was evicted, nothing is left to do; else the operation fails there.
    """

    name: str
    call: CallBuilder
    undo: CallBuilder | None = None
    retry_from: str | None = None
    again_on: frozenset[str] = frozenset()
    answers: frozenset[str] = frozenset()
    elsewhere: str | None = None
    pinned: bool = False
    gone_is_done: bool = False
    final: bool = False
    unclear: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WaitStep:
    """Waits outside of any transaction: for what only this process has (a user's connection), or for another service.

    `wait` must have a deadline of its own and raises a BrickyardError. It is cancelled when its requester cancels the
    operation, unless it is not `cancellable`: one whose volume has been changed for good, that must not raise either.
    After a takeover it runs again in another process; what only the first process had must then raise what ends the
    operation. A step that is not `needed` is done at once, without a result.
    """

    name: str
    wait: Callable[[Operation], Awaitable[Result | None]]
    undo: LocalRun | None = None
    needed: Callable[[Operation], bool] = lambda operation: True
    cancellable: bool = True


Step = LocalStep | JobStep | WaitStep


@dataclass(frozen=True, slots=True)
class Workflow:
    """`finished` runs in the transaction of the last step; `failed` in the one that ends the undo, unless `anew` gives
    the operation as it is to begin again.

    `together`: an operation's ways forward hold nothing but what is its own and the pool that it claims, and may share
    transactions with those of others. `at_once`: its first steps may be done in the very transaction that accepts it.
    """

    kind: str
    version: int
    steps: tuple[Step, ...]
    finished: Ended
    failed: Failed
    attention: Callable[[Connection, Operation, str], None] | None = None
    together: Callable[[Operation], bool] = lambda operation: False
    at_once: Callable[[Operation], bool] = lambda operation: False
    anew: Callable[[Connection, Operation, BrickyardError], Operation | None] = lambda conn, operation, error: None

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    def index(self, name: str) -> int:
        return next(i for i, step in enumerate(self.steps) if step.name == name)


class Workflows:
    """All workflows that this coordinator can run, by (kind, version)."""

    def __init__(self, workflows: tuple[Workflow, ...]) -> None:
        self._by_key = {(w.kind, w.version): w for w in workflows}
        self._newest = {w.kind: w for w in sorted(workflows, key=lambda w: w.version)}

    @property
    def known(self) -> frozenset[tuple[str, int]]:
        return frozenset(self._by_key)

    def of(self, operation: Operation) -> Workflow:
        return self._by_key[operation.kind, operation.version]

    def newest(self, kind: str) -> Workflow:
        return self._newest[kind]
