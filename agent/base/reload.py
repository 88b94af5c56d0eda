"""Taking over a changed configuration while the service runs (SIGHUP): what may change is marked in the models.

`Field(..., json_schema_extra=RELOADED)` marks a key, or a table with all that is below it. What is not marked keeps its
value until the next start. A file with a mistake changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agent.base import sdnotify
from agent.base.config import ConfigError
from agent.base.errors import BrickyardError
from agent.base.log import get_logger

log = get_logger(__name__)
RELOADED: dict[str, Any] = {"reloaded": True}
_STILL_S, _PATIENCE_S = 0.5, 20.0
_Settings = TypeVar("_Settings")


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


async def settled(read: Callable[[], _Settings], path: Path | None) -> _Settings:
    """What `read` makes of the file, once nobody has written it for half a second. ConfigError, and what `read` raises.

    One that is just being written may be whole TOML already, and say half of what it is to say.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + _PATIENCE_S
    while True:
        before, refused, found = _stamp(path), None, None
        try:
            found = await asyncio.to_thread(read)
        except BrickyardError as error:
            refused = error
        await asyncio.sleep(_STILL_S if path is not None else 0)
        if _stamp(path) == before:
            break
        if clock() >= end:
            raise ConfigError(
                where=str(path), key="the file", problem=f"was still being written after {_PATIENCE_S:.0f} s",
                remedy="Write it beside its place and rename it, then reload",
            )  # fmt: skip
    if refused is not None:
        raise refused
    assert found is not None
    return found


def _stamp(path: Path | None) -> tuple[int, ...]:
    try:
        now = path.stat() if path is not None else None
    except OSError:
        return (-1,)
    return (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns) if now is not None else ()


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
