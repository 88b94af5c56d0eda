"""Taking over a changed configuration while the service runs (SIGHUP): what may change is marked in the models.

`Field(..., json_schema_extra=RELOADED)` marks a key, or a table with all that is below it. What is not marked keeps its
value until the next start. A file with a mistake changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agent.base import sdnotify
from agent.base.log import get_logger

log = get_logger(__name__)
RELOADED: dict[str, Any] = {"reloaded": True}


@dataclass(frozen=True, slots=True)
class Changes:
    """Dotted keys: `taken` over now, `later` at the next start."""

    taken: tuple[str, ...]
    later: tuple[str, ...]


class Reloads:
    """Reloads one after the other, told to systemd; `asked` from a signal handler of the event loop."""

    def __init__(self, reload: Callable[[], Awaitable[None]]) -> None:
        self._reload = reload
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def asked(self) -> None:
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._again:
            self._again = False
            sdnotify.reloading()
            log.info("the configuration is read again")
            try:
                await self._reload()
            except Exception:
                log.exception("the configuration can not be taken over")
            sdnotify.ready()


def is_reloaded(field: FieldInfo) -> bool:
    """Whether a change of this key is taken over at SIGHUP."""
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("reloaded"))


def changes(old: BaseModel, new: BaseModel) -> Changes:
    """What differs between two configurations of one model."""
    taken: list[str] = []
    later: list[str] = []
    _compare(old, new, "", taken, later)
    return Changes(tuple(taken), tuple(later))


def _compare(old: BaseModel, new: BaseModel, prefix: str, taken: list[str], later: list[str]) -> None:
    for name, field in type(old).model_fields.items():
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        dotted = f"{prefix}{name}"
        if is_reloaded(field):
            taken.append(dotted)
        elif isinstance(before, BaseModel) and type(before) is type(after):
            _compare(before, after, f"{dotted}.", taken, later)
        else:
            later.append(dotted)
