"""What calls that share a transaction read once for all, and write at its end (`Database.write(together=)`).

Only on PostgreSQL: they are of one kind, which neither changes what they share nor reads what they change
themselves. Everywhere else `once` just reads, `later` just writes, and the rest does nothing.

The transaction is first made in the hope that all goes well (`hopeful`): then what is changed under a condition is
reckoned here, from rows that are held, and written at the end too, by one statement for all
(`coordinator.state.combined`).
A condition that does not hold then, or a savepoint that is rolled back, ends the hope (`HopeLost`), and all is done
again in the careful way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")
Act = Callable[[Connection, list[dict[str, Any]]], object]
Know = Callable[[Connection, list[str]], object]
Need = tuple[Know, str]
"""What a call will read, so that it is read for all at once: a function that notes it, and what to look for."""
TOGETHER = "brickyard_writes_together"


class HopeLost(Exception):
    """What was reckoned does not hold: the transaction is to be made anew, each call by itself."""


@dataclass(slots=True)
class Shared:
    """What is known in one transaction, and what is still to be written in it."""

    hopeful: bool = False
    known: dict[tuple[str, ...], Any] = field(default_factory=dict)
    due: list[tuple[Act, dict[str, Any]]] = field(default_factory=list)
    fresh: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)
    """Of what is due, the rows that are still to be inserted."""
    lost: bool = False

    def begin(self, conn: Connection, needs: Iterable[Need]) -> None:
        """Read what all will need."""
        kinds: dict[Know, list[str]] = {}
        for know, key in needs:
            kinds.setdefault(know, []).append(key)
        for know, keys in kinds.items():
            know(conn, keys)

    def finish(self, conn: Connection) -> None:
        """Write what is due, of each kind all at once; raises HopeLost."""
        if self.lost:
            raise HopeLost
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


def forget(conn: Connection, kind: str) -> None:
    """What was read under keys that begin so may have changed since."""
    sharing = shared(conn)
    if sharing is not None:
        for key in [key for key in sharing.known if key[0] == kind]:
            del sharing.known[key]


def fresh(conn: Connection, kind: str) -> list[dict[str, Any]]:
    """The rows that are still to be inserted under keys that begin so."""
    sharing = shared(conn)
    return [] if sharing is None else [row for key, row in sharing.fresh.items() if key[0] == kind]


def hopeful(conn: Connection) -> bool:
    """Whether what is known of a row may be reckoned with, and its change be written `later`."""
    sharing = shared(conn)
    return sharing is not None and sharing.hopeful


def later(conn: Connection, act: Act, item: dict[str, Any], key: tuple[str, ...] | None = None) -> None:
    """Write what nobody reads in this transaction: `act(conn, items)`, once for all calls.

    `key` names a row that is inserted so, for `amend`.
    """
    sharing = shared(conn)
    if sharing is None:
        act(conn, [item])
        return
    sharing.due.append((act, item))
    if key is not None and sharing.hopeful:
        sharing.fresh[key] = item


def amend(conn: Connection, key: tuple[str, ...], values: Mapping[str, Any]) -> bool:
    """Change a row that is still to be inserted; False when there is none such."""
    sharing = shared(conn)
    item = None if sharing is None else sharing.fresh.get(key)
    if item is None:
        return False
    item.update(values)
    return True


def mark(conn: Connection) -> int:
    """For `undone`, taken with the savepoint."""
    sharing = shared(conn)
    return 0 if sharing is None else len(sharing.due)


def undone(conn: Connection, since: int) -> None:
    """A savepoint was rolled back: what was read since then may have been let go, what is due since then is not."""
    sharing = shared(conn)
    if sharing is not None:
        sharing.lost = sharing.hopeful
        sharing.known.clear()
        del sharing.due[since:]
