"""PostgreSQL, too, reads no table that grows from end to end: its plans of every query, with many rows to plan for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, Boolean, Column, Connection, DateTime, Engine, Float, Integer, LargeBinary, event, text

from coordinator.state.tables import load_all
from tests.unit.coordinator.api.everycall import GROWING, every_call
from tests.unit.coordinator.api.volumesite import volume_api

pytestmark = [pytest.mark.only("postgresql"), pytest.mark.timeout(600)]
ROWS, PARTS = 4000, ("_metadata", "_properties")
KNOWN = {
    "project_id": "'p' || g % 100", "name": "'n' || g", "deleted": "g % 5 = 0", "status": "'available'",
    "state": "'done'", "deleted_at": "CASE WHEN g % 5 = 0 THEN now() END", "use_quota": "true",
    "position": "NULL",
}  # fmt: skip
Node = dict[str, Any]


class Plans:
    """Every statement that runs, once, with the server's plan for it."""

    def __init__(self, engine: Engine) -> None:
        self.seen: dict[str, Node] = {}
        event.listen(engine, "before_cursor_execute", self._note)

    def _note(self, _conn: Any, cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if statement in self.seen or not statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            return
        cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters[0] if many else parameters)
        told = cursor.fetchone()[0]
        self.seen[statement] = (json.loads(told) if isinstance(told, str) else told)[0]["Plan"]

    def scans(self) -> list[str]:
        """Statements that read a growing table from end to end.

        A page of everybody's rows by what no index knows, which administrators ask for, reads them all.
        """
        return sorted(
            f"{node['Relation Name']}: ...{statement[statement.rindex('FROM') :]}"
            for statement, plan in self.seen.items()
            for node in nodes(plan)
            if node.get("Relation Name") in GROWING and node["Node Type"] == "Seq Scan" and not everybodys(statement)
        )


def everybodys(statement: str) -> bool:
    return "ORDER BY" in statement and "LIMIT" in statement and "project_id = " not in statement


def nodes(plan: Node) -> Iterator[Node]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def many_rows(conn: Connection) -> None:
    """Thousands in each table: of a hundred projects, a fifth of them deleted, nothing at work."""
    conn.execute(text("SET LOCAL session_replication_role = replica"))
    for name in GROWING:
        table = load_all().tables[name]
        columns = [column for column in table.columns if column.name != "seq"]
        names, values = ", ".join(each.name for each in columns), ", ".join(value_of(each) for each in columns)
        count = ROWS * 10 if name.endswith(PARTS) else ROWS
        conn.execute(text(f"INSERT INTO {name} ({names}) SELECT {values} FROM generate_series(1, {count}) AS g"))
    conn.execute(text("ANALYZE"))


def value_of(column: Column[Any]) -> str:
    """An expression, of the row's number g, that is as such rows have it."""
    name, kind = column.name, column.type
    if name in KNOWN:
        return KNOWN[name]
    if isinstance(kind, JSON):
        return "'{}'"
    if isinstance(kind, Boolean):
        return "false"
    if isinstance(kind, (Integer, Float)):
        return "g"
    if isinstance(kind, DateTime):
        return "now() - g * interval '1 minute'"
    if isinstance(kind, LargeBinary):
        return "''::bytea"
    own = name == "id" or name.endswith("_id") or column.primary_key
    return f"left(gen_random_uuid()::text, {kind.length or 64})" if own else "left('x' || g % 7, 8)"


async def test_no_query_reads_a_growing_table_from_end_to_end(tmp_path: Path) -> None:
    async with volume_api(tmp_path) as api:
        db = api.here.db
        await db.write(many_rows)
        plans = Plans(db.engine)
        await api.volume(metadata={"a": "b"})
        await every_call(api)
        assert len(plans.seen) > 200
        scans = plans.scans()
        assert scans == [], "\n".join(scans)
