"""An event on its way out, and what takes it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Row


@dataclass(frozen=True, slots=True)
class Event:
    """`position` is its place in the order of all events; the same event always has the same."""

    position: int
    at: datetime.datetime
    type: str
    resource_type: str
    resource_id: str
    project_id: str
    request_id: str
    payload: dict[str, Any]

    @classmethod
    def of(cls, row: Row[Any]) -> Event:
        return cls(row.position, *(getattr(row, name) for name in cls.__slots__[1:]))


class Sink(Protocol):
    """A receiver. `name` tells it apart for good: how far it came is kept under it."""

    name: str

    def wants(self, event: Event) -> bool: ...

    async def send(self, event: Event) -> None:
        """Has been taken when this returns; raises NotSent. May be called again with the same event."""
        ...

    async def close(self) -> None: ...
