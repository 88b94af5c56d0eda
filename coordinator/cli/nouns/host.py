"""`brickyard host`."""

from __future__ import annotations

import click

from agent.base.terminal.group import LazyGroup
from agent.base.terminal.output import Endless, Record, Table, emit, form, shown
from agent.base.terminal.sizes import size
from coordinator.cli.client.context import confirm, connected, yes_option
from coordinator.cli.client.session import Session
from coordinator.cli.client.waiting import frames, watch_option

PATH = "/brickyard/v1/hosts"
LISTED = ("id", "state", "enabled", "drained_at", "keeps_images", "address", "availability_zone", "last_seen")


_MORE = {
    "drain": ("coordinator.cli.nouns.drain:drain", "Take a host out of use for maintenance."),
}


@click.group(cls=LazyGroup, lazy=_MORE)
def host() -> None:
    """Hosts of the fleet."""


@host.command("list")
@watch_option
@shown
@connected
def list_hosts(session: Session, watch: bool) -> Table | Endless:
    """List hosts."""

    def read() -> Table:
        rows = [{**row, "state": "up" if row["reachable"] else "down"} for row in session.pages(PATH, "hosts")]
        return Table(rows, LISTED)

    return frames(read) if watch else read()


@host.command()
@click.argument("name")
@shown
@connected
def show(session: Session, name: str) -> Record:
    """Show the host NAME with its pools and what it told of itself."""
    found = session.get(f"{PATH}/{name}")["host"]
    found["free"] = {
        pool["id"]: f"{size(pool['free_bytes'])} of {size(pool['total_bytes'])}" for pool in found["pools"]
    }
    names = ("id", "reachable", "enabled", "disabled_reason", "drained_at", "last_seen", "address", "control_port",
             "data_port", "keeps_images", "availability_zone", "free", "facts")  # fmt: skip
    return Record(found, names)


@host.command()
@click.argument("name", required=False)
@click.option("--address", help="Address at which the host reaches this coordinator; default: the one of the API.")
@click.option("--lifetime", type=click.IntRange(60, 7 * 86400), default=3600, show_default=True, help="Seconds.")
@shown
@connected
def token(session: Session, name: str | None, address: str | None, lifetime: int) -> Record:
    """Make a one-time join token; with NAME for that host alone, which may then be set up anew.

    On the host: brickyard-agent join TOKEN
    """
    body = {"host": name, "address": address, "lifetime_s": lifetime}
    given = {key: value for key, value in body.items() if value is not None}
    return Record(session.call("POST", f"{PATH}/enrol-token", given), value="token")


@host.command()
@click.argument("name")
@click.option("--reason", help="Told to those who look.")
@shown
@connected
def disable(session: Session, name: str, reason: str | None) -> Record:
    """Place no new volumes on the host NAME; what is there goes on."""
    return Record(session.call("POST", f"{PATH}/{name}/disable", {"reason": reason})["host"], LISTED_STATE)


@host.command()
@click.argument("name")
@shown
@connected
def enable(session: Session, name: str) -> Record:
    """Place volumes on the host NAME again; one that was drained takes up its work."""
    return Record(session.call("POST", f"{PATH}/{name}/enable")["host"], LISTED_STATE)


@host.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Only show what depends on it, and what becomes of that.")
@click.option("--fenced", metavar="PROOF", help="It was cut off or switched off: what the fence answered. It is kept.")
@click.option("--operator-says", metavar="WORDS", help="It is dead on your own word, which is kept.")
@yes_option
@shown
@connected
def evict(
    session: Session, *, name: str, dry_run: bool, fenced: str | None, operator_says: str | None, yes: bool
) -> Record | None:
    """Give up the host NAME, which does not come back: free what it has attached, end what waits for it.

    Data are not touched: enrolled again under its name, its volumes can be repaired. A host on which nothing depends
    needs no evidence.
    """
    if fenced is not None and operator_says is not None:
        raise click.UsageError("Give one evidence: --fenced or --operator-says.")
    path = f"{PATH}/{name}/evict"
    found = session.call("POST", path, {"dry_run": True})["eviction"]
    if not dry_run:
        told = [f"{part['count']} {part['what']}: {part['fate']}." for part in found["parts"]]
        confirm(f"Evict host {name}? " + " ".join(told or ["Nothing depends on it."]), yes)
        body: dict[str, object] = {"dry_run": False}
        if fenced is not None or operator_says is not None:
            body |= {"proof": "fence" if fenced is not None else "operator", "words": fenced or operator_says or ""}
        found = session.call("POST", path, body)["eviction"]
    if form() in {"json", "ndjson"}:
        return Record(found)
    if found["answers"]:
        click.echo(f"Host {name} answers.", err=True)
    emit(Table(found["parts"], ("what", "count", "fate")), form())
    return None


@host.command()
@watch_option
@shown
@connected
def evictions(session: Session, watch: bool) -> Table | Endless:
    """List hosts that were given up: when, by whom, on what evidence; and when they came back and were cleared."""
    columns = ("host_id", "at", "user_id", "evidence", "words", "returned_at", "cleared_at")

    def read() -> Table:
        return Table(list(session.pages("/brickyard/v1/evictions", "evictions")), columns)

    return frames(read) if watch else read()


LISTED_STATE = ("id", "enabled", "disabled_reason", "drained_at", "reachable")
