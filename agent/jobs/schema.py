"""Tables of the agent's own database and how they came to be, release by release.

All tables are STRICT. A migration, once released, is never changed; what is new is added below it.
"""

from __future__ import annotations

from sqlite_utils import Database, Migrations
from sqlite_utils.db import Table

migrations = Migrations("agent")

JOB_COLUMNS = {
    "key": str,
    "operation": str,
    "step": str,
    "attempt": int,
    "epoch": int,
    "kind": str,
    "version": int,
    "args": str,
    "secret_names": str,
    "state": str,
    "seq": int,
    "progress": str,
    "checkpoint": str,
    "result": str,
    "error": str,
    "request_id": str,
    "cancel_requested": int,
    "created_at": float,
    "updated_at": float,
    "boot_id": str,
}


def table(db: Database, name: str) -> Table:
    """The table `name`, typed."""
    found = db.table(name)
    assert isinstance(found, Table)
    return found


@migrations(name="0001_jobs")
def _jobs(db: Database) -> None:
    required = {"key", "operation", "step", "attempt", "epoch", "kind", "version", "args", "state", "seq"}
    table(db, "jobs").create(JOB_COLUMNS, pk="key", not_null=required, strict=True)
    table(db, "epochs").create(
        {"operation": str, "epoch": int, "updated_at": float}, pk="operation", not_null={"epoch"}, strict=True
    )
    table(db, "epochs").create_index(["updated_at"])
    table(db, "tombstones").create(
        {"key": str, "epoch": int, "reason": str, "created_at": float}, pk="key", not_null={"reason"}, strict=True
    )
    table(db, "tombstones").create_index(["created_at"])
    table(db, "starts").create({"id": int, "count": int}, pk="id", not_null={"count"}, strict=True)


@migrations(name="0002_desired_state")
def _desired_state(db: Database) -> None:
    table(db, "generations").create(
        {"volume_id": str, "incarnation": int, "sequence": int, "updated_at": float},
        pk="volume_id",
        not_null={"incarnation", "sequence"},
        strict=True,
    )
    table(db, "attachments").create(
        {
            "attachment_id": str,
            "volume_id": str,
            "backend": str,
            "incarnation": int,
            "sequence": int,
            "mode": str,
            "wanted": int,
            "encryption": str,
            "device": str,
            "raw_device": str,
            "raw": int,
            "identifiers": str,
            "boot_id": str,
            "created_at": float,
            "updated_at": float,
        },
        pk="attachment_id",
        not_null={"volume_id", "backend", "incarnation", "sequence", "mode", "wanted"},
        strict=True,
    )
    table(db, "attachments").create_index(["volume_id"])
    table(db, "exports").create(
        {
            "name": str,
            "volume_id": str,
            "transport": str,
            "incarnation": int,
            "sequence": int,
            "settings": str,
            "boot_id": str,
            "updated_at": float,
        },
        pk="name",
        not_null={"volume_id", "transport"},
        strict=True,
    )


@migrations(name="0003_export_generations")
def _export_generations(db: Database) -> None:
    table(db, "export_generations").create(
        {"volume_id": str, "incarnation": int, "sequence": int, "updated_at": float},
        pk="volume_id",
        not_null={"incarnation", "sequence"},
        strict=True,
    )


@migrations(name="0004_leases")
def _leases(db: Database) -> None:
    table(db, "jobs").add_column("lease_s", float)
