"""What commands are given: the session, things by name or id, and a person's consent."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from agent.base.ids import is_id
from agent.base.terminal.output import Table
from coordinator.cli.client.errors import Ambiguous, NoSuch, RefusedMissing
from coordinator.cli.client.session import Session

F = TypeVar("F", bound=Callable[..., Any])


def connected(function: F) -> F:
    """Gives the command a logged-in `Session` as its first argument, and closes it afterwards."""

    @functools.wraps(function)
    def command(*args: Any, **rest: Any) -> Any:
        context = click.get_current_context()
        session = Session.from_environment(context.find_root().params.get("openrc"))
        context.call_on_close(session.close)
        return function(session, *args, **rest)

    return command  # type: ignore[return-value]


def confirm(question: str, yes: bool) -> None:
    """Ask before something is destroyed; without a terminal, `--yes` must have been given."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to ask on; give --yes.")
    click.confirm(question, abort=True, err=True)


yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Only show what would be lost; change nothing.")
PLANNED = ("action", "id", "name", "loses", "refused")


def destructive(function: F) -> F:
    """A verb that destroys something: it takes `--yes` and `--dry-run`, and with the latter returns `planned(…)`."""
    return yes_option(dry_run_option(function))


def planned(action: str, items: Iterable[dict[str, Any]], loses: Callable[[dict[str, Any]], str]) -> Table:
    """What a destructive verb would do to these items: what of each is lost, and why it would be refused."""
    return Table(
        [
            {
                "action": action,
                "id": item.get("id"),
                "name": item.get("name"),
                "loses": loses(item),
                "refused": item.get("refused"),
            }
            for item in items
        ],
        PLANNED,
    )


def found(session: Session, noun: str, path: str, key: str, name: str, **query: Any) -> dict[str, Any]:
    """The one thing with this id or name; raises `NoSuch`, `Ambiguous`. `key` is the plural that wraps lists."""
    if is_id(name):
        try:
            answer: dict[str, Any] = session.get(f"{path}/{name}")
            return dict(answer.get(singular(key), answer))
        except RefusedMissing:
            raise NoSuch(noun=noun, name=name) from None
    lists = f"{path}/detail" if key in {"volumes", "snapshots"} else path
    return chosen(session.pages(lists, key, **query), noun, name)


def chosen(items: Iterable[dict[str, Any]], noun: str, name: str) -> dict[str, Any]:
    """The item with this name or id."""
    among = [item for item in items if name in (item.get("name"), item.get("id"))]
    if not among:
        raise NoSuch(noun=noun, name=name)
    if len(among) > 1:
        ids = ", ".join(str(item["id"]) for item in among[:5])
        raise Ambiguous(noun=noun, name=name, count=len(among), ids=ids)
    return among[0]


def singular(key: str) -> str:
    return "volume_type" if key == "volume_types" else key.removesuffix("s")


def pairs(items: Iterable[str], what: str) -> dict[str, str]:
    """`KEY=VALUE` options as a mapping."""
    made = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{what} needs the form KEY=VALUE, not {item!r}.")
        made[key] = value
    return made
