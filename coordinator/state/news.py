"""Hints between the coordinators of one database: something has changed, look at the rows.

News may be lost or come twice. Nothing may depend on them but how soon somebody looks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Connection

Heard = Callable[[str], object]
ENDED, CANCELLED, FREED, HOSTS, HOST_UP = "ended", "cancelled", "freed", "hosts", "host-up"
"""Topics: an operation (id) ended or is to be cancelled; operations were let go; hosts joined or left; one answers."""
PROGRESS = "progress"
"""Topic: an operation (id) has come further."""
EVENTS = "events"
"""Topic: there are new events."""
COMPLETED = "completed"
"""Topic: a server has enlarged a volume (id), or could not."""
CACHED = "cached"
"""Topic: an image cache holds something else than before."""
RINGS = "rings"


def ring(conn: Connection, topic: str) -> None:
    """Wake who waits for this topic, here and elsewhere, when the transaction is committed."""
    conn.info.setdefault(RINGS, set()).add(topic)


class News(Protocol):
    """What a database offers."""

    def start(self) -> None:
        """Begin to listen and to tell."""

    def tell(self, topic: str, key: str = "") -> None:
        """Tell the other coordinators; returns at once, from any thread."""

    def follow(self, topic: str, heard: Heard) -> None:
        """Call `heard(key)` at news of the others, in a thread of the listener; must return at once."""

    def close(self) -> None:
        """Stop listening."""


class Silence:
    """There is nobody else."""

    def start(self) -> None:
        """Nothing to hear."""

    def tell(self, topic: str, key: str = "") -> None:
        """Nobody to tell."""

    def follow(self, topic: str, heard: Heard) -> None:
        """Nothing will come."""

    def close(self) -> None:
        """Nothing to stop."""
