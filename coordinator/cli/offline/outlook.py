"""`db upgrade --check`: what an upgrade to this release would do, and what is in its way."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, select

from agent.base.errors import Conflict
from agent.wire.releases import OLDEST, too_old
from coordinator.cli.offline.site import beside
from coordinator.server.settings import CoordinatorSettings
from coordinator.state import coordinators
from coordinator.state.tables.fleet import hosts
from coordinator.state.upgrade import outlook

_NAMED = 20


class AgentsTooOld(Conflict):
    code = "cli.agents-too-old"
    exit_code = 6
    sentence = "Agents older than release {oldest} would get no work from this one: {hosts}."
    hint = "Upgrade them first, to the release that the coordinators run now; they may be upgraded in any order."


def look(settings: CoordinatorSettings) -> Iterator[str]:
    """Lines for the terminal; raises AgentsTooOld, NotMoved or SchemaTooNew. Nothing is changed."""
    with beside(settings, any_schema=True) as database:
        found, steps = database.read_now(outlook)
        at_work = database.read_now(coordinators.living) if not database.alone and found and found >= "0003" else []
        old = database.read_now(_too_old) if found else []
    yield f"Schema {found or 'none'}: {len(steps)} steps to {steps[-1]}." if steps else f"Schema {found} already."
    if at_work:
        yield f"Coordinators at work, to be replaced one by one: {', '.join(at_work)}."
    if old:
        more = f" and {len(old) - _NAMED} more" if len(old) > _NAMED else ""
        raise AgentsTooOld(oldest=".".join(map(str, OLDEST)), hosts=", ".join(old[:_NAMED]) + more)
    yield "Nothing is in the way."


def _too_old(conn: Connection) -> list[str]:
    rows = conn.execute(select(hosts.c.id, hosts.c.facts).order_by(hosts.c.id))
    versions = {row.id: str((row.facts or {}).get("version", "")) for row in rows}
    return [f"{name} ({version})" for name, version in versions.items() if too_old(version)]
