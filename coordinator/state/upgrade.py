"""Upgrading a database to this release's schema, and comparing a database with it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from agent.base.faults import declare, fault_point
from coordinator.state import moves, schema
from coordinator.state.database import Database
from coordinator.state.locks import beside_others, hold_name
from coordinator.state.tables import load_all

declare("upgrade.step", "upgrade.done")
_MOST_WAIT_S = 5


def upgrade_all(db: Database) -> tuple[str | None, str]:
    """Apply the migrations that are missing; returns (version before, version after); raises what `upgrade` does.

    On SQLite all in one transaction. Where others work meanwhile each has its own: one that held what several of them
    change would wait for those who hold a part of it, and they for it.
    """
    found, missing = db.read_now(outlook)
    if db.alone or found is None:
        return db.write_now(upgrade)
    for version in missing:
        db.write_now(partial(upgrade, to=version))
    return found, schema.HEAD


def upgrade(conn: Connection, to: str = "head") -> tuple[str | None, str]:
    """Apply the migrations up to `to` that are missing, in the caller's transaction; (version before, version after).

    Killed in between, nothing has changed. Raises SchemaTooNew for a database of a newer release, NotMoved where a
    migration counts on data that were not moved yet. Coordinators of the release before may work on meanwhile, where
    the database lets them: migrations only add.
    """
    from alembic import command

    hold_name(conn, "schema")
    found = schema.version(conn)
    if beside_others(conn):
        # A change of a table waits for all who use it, and all others wait behind it: rather again than long.
        conn.execute(text(f"SET LOCAL lock_timeout = '{_MOST_WAIT_S}s'"))
    config = _config(conn)
    _check(conn, config, found)
    config.attributes["applied"] = lambda **_: fault_point("upgrade.step")
    command.upgrade(config, to)
    fault_point("upgrade.done")
    return found, schema.HEAD if to == "head" else to


def outlook(conn: Connection) -> tuple[str | None, tuple[str, ...]]:
    """The database's version and those that `upgrade` would bring it to, one by one; raises what `upgrade` would."""
    found = schema.version(conn)
    _check(conn, _config(conn), found)
    return found, schema.RELEASED if found is None else schema.RELEASED[schema.RELEASED.index(found) + 1 :]


def _check(conn: Connection, config: Any, found: str | None) -> None:
    if found is not None and found not in schema.RELEASED:
        schema.check(found)
    check_pending(conn, config, found)


def check_pending(conn: Connection, config: Any, found: str | None) -> None:
    """Raise NotMoved unless all was moved that the migrations after `found` count on (their `needs_moved`)."""
    from alembic.script import ScriptDirectory

    if found is None:
        return
    for script in ScriptDirectory.from_config(config).iterate_revisions("head", found):
        moves.check_moved(conn, script.revision, getattr(script.module, "needs_moved", ()))


def differences(conn: Connection) -> list[Any]:
    """What alembic would have to change to make this database what the tables say; empty when it is right."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    return list(compare_metadata(MigrationContext.configure(conn, opts={"compare_type": True}), load_all()))


def _config(conn: Connection) -> Any:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = conn
    return config
