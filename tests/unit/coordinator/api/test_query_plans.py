"""No call of the API reads a table that grows from end to end: the plan of every query it issues is looked at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from coordinator.state import clusters
from tests.unit.coordinator.api.everycall import GROWING, every_call
from tests.unit.coordinator.api.volumesite import Api, volume_api

FEW = ("ix_operations_active", "uq_issues_open")
"""Indexes of what is under way: what reads them whole reads few rows."""
_WALK = re.compile(r"SCAN (\w+) USING (?:COVERING )?INDEX (\w+)")


class Plans:
    """Every statement that runs, once, with SQLite's plan for it."""

    def __init__(self, engine: Engine) -> None:
        self.seen: dict[str, list[str]] = {}
        event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, _conn: Any, cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if statement in self.seen or not statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            return
        cursor.execute(f"EXPLAIN QUERY PLAN {statement}", parameters[0] if many else parameters)
        self.seen[statement] = [str(row[3]) for row in cursor.fetchall()]

    def scans(self) -> list[str]:
        """Statements that read a growing table from end to end.

        A page of everybody's rows, which administrators ask for, walks an index of live rows until it is full.
        """
        found = []
        for statement, plan in self.seen.items():
            for step in plan:
                walk = _WALK.match(step)
                if not step.startswith("SCAN ") or step.split()[1] not in GROWING or "WHERE 0 = 1" in statement:
                    continue
                by = walk[2] if walk is not None else ""
                paged = ("_live_" in by or "_autoindex_" in by) and "ORDER BY" in statement and "LIMIT" in statement
                if not paged and by not in FEW:
                    found.append(f"{step}: ...{statement[statement.rindex('FROM') :]}")
        return sorted(set(found))


def plans_of(api: Api) -> Plans:
    if api.here.db.engine.dialect.name != "sqlite":
        pytest.skip("these are the plans of SQLite")
    return Plans(api.here.db.engine)


HOT = (
    ("/volumes?name=x", "ix_volumes_live_name"), ("/volumes?host=h", "ix_volumes_live_host"),
    ("/volumes?volume_type_id=x", "ix_volumes_live_type"), ("/snapshots?volume_id=x", "ix_snapshots_live_volume"),
    ("/snapshots?name=x", "ix_snapshots_live_name"), ("/attachments?volume_id=x", "ix_attachments_live_volume"),
    ("/attachments?instance_id=x", "ix_attachments_live_instance"), ("/volumes?status=x", "ix_volumes_live_status"),
    ("/volumes?user_id=x", "ix_volumes_live_user"), ("/volumes?availability_zone=x", "ix_volumes_live_zone"),
    ("/volumes?snapshot_id=x", "ix_volumes_live_snapshot_id"), ("/volumes?group_id=x", "ix_volumes_live_group_id"),
    ("/volumes?source_volid=x", "ix_volumes_live_source_volid"), ("/volumes?bootable=1", "ix_volumes_live_bootable"),
    ("/volumes?multiattach=1", "ix_volumes_live_multiattach"),
    ("/volumes?migration_status=x", "ix_volumes_live_migration_status"),
    ("/snapshots?status=x", "ix_snapshots_live_status"), ("/attachments?status=x", "ix_attachments_live_status"),
    # Of several filters, and of filter and project, the one that finds the fewest rows.
    ("/volumes?status=x&host=h", "ix_volumes_live_host"), ("/volumes?status=x&host=h&name=x", "ix_volumes_live_name"),
    ("/volumes?availability_zone=x&volume_type_id=x&user_id=x&status=x", "ix_volumes_live_user"),
    ("/attachments?status=x&instance_id=x", "ix_attachments_live_instance"),
    ("/snapshots?status=x&volume_id=x", "ix_snapshots_live_volume"),
)  # fmt: skip
IN_A_PROJECT = (
    ("/volumes?name=x", "ix_volumes_live_name"), ("/volumes?status=x", "ix_volumes_live_project_status"),
    ("/volumes?name=x&status=x", "ix_volumes_live_name"), ("/volumes?availability_zone=x", "ix_volumes_live_project"),
    ("/volumes?volume_type_id=x", "ix_volumes_live_project"), ("/snapshots?volume_id=x", "ix_snapshots_live_volume"),
    ("/snapshots?status=x", "ix_snapshots_live_project"), ("/attachments?status=x", "ix_attachments_live_project"),
    ("/attachments?volume_id=x", "ix_attachments_live_volume"),
    ("/volumes?user_id=x&status=x", "ix_volumes_live_user"),
)  # fmt: skip


async def test_what_is_looked_for_most_is_found_by_an_index(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        plans = plans_of(api)
        asked = [(f"{path}&all_tenants=1", index) for path, index in HOT] + [*IN_A_PROJECT]
        for path, index in asked:
            plans.seen.clear()
            assert (await api("GET", path, who="root")).status == 200
            assert any(f"USING INDEX {index} (" in step for plan in plans.seen.values() for step in plan), plans.seen


async def test_no_query_reads_a_growing_table_from_end_to_end(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        plans = plans_of(api)
        for _ in range(2):
            await api.volume(metadata={"a": "b"})
        await every_call(api)
        assert len(plans.seen) > 200
        scans = plans.scans()
        assert scans == [], "\n".join(scans)


async def test_what_members_lost_is_looked_for_by_their_host(tmp_path: Path) -> None:
    """Every few seconds and in the thread that writes: by status it went through all idle volumes of the site."""
    async with volume_api(tmp_path) as api:
        plans = plans_of(api)
        await api.here.db.write(clusters.spread_idle)
        (plan,) = plans.seen.values()
        assert plan[0] == "SEARCH volumes USING INDEX ix_volumes_live_host (host_id=?)"
