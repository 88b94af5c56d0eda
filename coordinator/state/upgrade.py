"""Upgrading a database to this release's schema, and comparing a database with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from agent.base.faults import declare, fault_point
from coordinator.state import schema
from coordinator.state.locks import hold_name
from coordinator.state.tables import load_all

declare("upgrade.step", "upgrade.done")


def upgrade(conn: Connection) -> tuple[str | None, str]:
    """Apply the migrations that are missing, in the caller's transaction; returns (version before, version after).

    Killed in between, nothing has changed. Raises SchemaTooNew for a database of a newer release.
    """
    from alembic import command

    hold_name(conn, "schema")
    found = schema.version(conn)
    if found is not None and found not in schema.RELEASED:
        schema.check(found)
    config = _config(conn)
    config.attributes["applied"] = lambda **_: fault_point("upgrade.step")
    command.upgrade(config, "head")
    fault_point("upgrade.done")
    return found, schema.HEAD


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
