"""What calls that share a transaction read once for all, and write at its end (`Database.write(together=)`).

Only on PostgreSQL: they are of one kind, which neither changes what they share nor reads what they change
themselves. Everywhere else `once` just reads, `later` just writes, and the rest does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")
Act = Callable[[Connection, list[dict[str, Any]]], object]
TOGETHER = "brickyard_writes_together"


@dataclass(slots=True)
class Shared:
    """What is known in one transaction, and what is still to be written in it."""

    known: dict[tuple[str, ...], Any] = field(default_factory=dict)
    due: list[tuple[Act, dict[str, Any]]] = field(default_factory=list)

    def finish(self, conn: Connection) -> None:
        """Write what is due, of each kind all at once."""
        kinds: dict[Act, list[dict[str, Any]]] = {}
        for act, item in self.due:
            kinds.setdefault(act, []).append(item)
        for act, items in kinds.items():
            act(conn, items)


def shared(conn: Connection) -> Shared | None:
    """None where nobody shares the transaction."""
    found: Shared | None = conn.get_execution_options().get(TOGETHER)
    return found


def once(conn: Connection, key: tuple[str, ...], read: Callable[[], T]) -> T:
    """What `read` gives, or gave."""
    sharing = shared(conn)
    if sharing is None:
        return read()
    if key not in sharing.known:
        sharing.known[key] = read()
    found: T = sharing.known[key]
    return found


def known(conn: Connection, key: tuple[str, ...]) -> Any:
    """What was read or noted; None where nothing was."""
    sharing = shared(conn)
    return None if sharing is None else sharing.known.get(key)


def note(conn: Connection, key: tuple[str, ...], value: Any) -> None:
    """What `once` is to give from now on."""
    sharing = shared(conn)
    if sharing is not None:
        sharing.known[key] = value


def later(conn: Connection, act: Act, item: dict[str, Any]) -> None:
    """Write what nobody reads in this transaction: `act(conn, items)`, once for all calls."""
    sharing = shared(conn)
    if sharing is None:
        act(conn, [item])
    else:
        sharing.due.append((act, item))


def mark(conn: Connection) -> int:
    """For `undone`, taken with the savepoint."""
    sharing = shared(conn)
    return 0 if sharing is None else len(sharing.due)


def undone(conn: Connection, since: int) -> None:
    """A savepoint was rolled back: what was read since then may have been let go, what is due since then is not."""
    sharing = shared(conn)
    if sharing is not None:
        sharing.known.clear()
        del sharing.due[since:]
