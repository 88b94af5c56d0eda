"""Fill a coordinator's fresh state with volumes: `_seed.py STATE_DIR COUNT [URL]`, before its first start.

The state is SQLite in the folder, or the PostgreSQL database of the URL.

Every volume has one pair of metadata; one in ten is attached. They belong to the project of the administrator. A
million take less than a minute: indexes are made when all rows are there, and PostgreSQL checks no references.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, text

from coordinator.identity.bootstrap import ADMIN_PROJECT_ID, ADMIN_USER_ID
from coordinator.server.settings import CoordinatorSettings
from coordinator.server.start import open_state
from coordinator.state import usage

# How the databases differ: the numbers 1 to :count, an id of such a number, a time.
_SQLITE = {
    "{numbers}": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) ",
    "{id}": "printf('00000000-0000-4000-8000-%012x', i)",
    "{other}": "printf('00000000-0000-4000-9000-%012x', i)",
    "{time}": "strftime('%Y-%m-%d %H:%M:%S', 1750000000 + i, 'unixepoch') || '.000000'",
    "{bytes}": "(1 + i % 8) << 30",
    "{indexes}": "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = :name AND sql IS NOT NULL",
    "{hurry}": "PRAGMA cache_size = -400000",
}
_POSTGRESQL = {
    "{numbers}": "WITH n(i) AS (SELECT generate_series(1, :count)) ",
    "{id}": "'00000000-0000-4000-8000-' || lpad(to_hex(i), 12, '0')",
    "{other}": "'00000000-0000-4000-9000-' || lpad(to_hex(i), 12, '0')",
    "{time}": "to_timestamp(1750000000 + i) AT TIME ZONE 'UTC'",
    "{bytes}": "CAST(1 + i % 8 AS bigint) << 30",
    "{indexes}": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() AND tablename = :name "
    "AND indexname NOT IN (SELECT conname FROM pg_constraint)",
    "{hurry}": "SET LOCAL session_replication_role = replica",
}
_ATTACHED = "i % 10 = 0"
_VOLUMES = f"""{{numbers}}
INSERT INTO volumes (id, project_id, user_id, name, size, status, attach_status, host_id, backend, pool, pool_id,
                     volume_type_id, device_bytes, usable_bytes, created_at, updated_at, launched_at)
SELECT {{id}}, :project, :user, 'volume-' || i, 1 + i % 8,
       CASE WHEN {_ATTACHED} THEN 'in-use' ELSE 'available' END,
       CASE WHEN {_ATTACHED} THEN 'attached' ELSE 'detached' END,
       'seeded', 'files', 'files', 'seeded@files#files', :type, {{bytes}}, {{bytes}},
       {{time}}, {{time}}, {{time}} FROM n"""
_FILLED = ("volumes", "volume_metadata", "attachments")
_METADATA = "{numbers} INSERT INTO volume_metadata SELECT {id}, 'purpose', 'bench-' || (i % 7) FROM n"
_ATTACHMENTS = f"""{{numbers}}
INSERT INTO attachments (id, volume_id, project_id, owner, instance_id, attached_host, mountpoint, attach_mode,
                         attach_status, attach_time, created_at)
SELECT {{other}}, {{id}}, :project, 'external', {{id}}, 'seeded', '/dev/vdb', 'rw',
       'attached', {{time}}, {{time}} FROM n WHERE {_ATTACHED}"""


def volume_id(number: int) -> str:
    """The id of the volume with this number (from 1)."""
    return f"00000000-0000-4000-8000-{number:012x}"


def _in_words(template: str, words: dict[str, str]) -> str:
    for word, meaning in words.items():
        template = template.replace(word, meaning)
    return template


@contextmanager
def without_indexes(conn: Connection, words: dict[str, str]) -> Iterator[None]:
    """The indexes of what is filled are dropped, and made anew at the end."""
    found = [row for name in _FILLED for row in conn.execute(text(words["{indexes}"]), {"name": name})]
    for name, _ in found:
        conn.execute(text(f'DROP INDEX "{name}"'))
    yield
    for _, definition in found:
        conn.exec_driver_sql(definition)


def main(state_dir: Path, count: int, url: str | None = None) -> None:
    settings = CoordinatorSettings.model_validate({"coordinator": {"state_dir": str(state_dir)}, "state": {"url": url}})
    opened = open_state(settings)
    words = _SQLITE if opened.db.alone else _POSTGRESQL

    def fill(conn: Connection) -> None:
        type_id = conn.execute(text("SELECT id FROM volume_types WHERE NOT deleted")).scalar_one()
        values = {"count": count, "project": ADMIN_PROJECT_ID, "user": ADMIN_USER_ID, "type": type_id}
        conn.execute(text(words["{hurry}"]))
        with without_indexes(conn, words):
            for template in (_VOLUMES, _METADATA, _ATTACHMENTS):
                statement = _in_words(template, words)
                mine = {name: value for name, value in values.items() if f":{name}" in statement}
                conn.execute(text(statement), mine)

    def fill_and_count(conn: Connection) -> None:
        fill(conn)
        if usage.rules(conn).kept:
            usage.recount(conn)

    opened.db.write_now(fill_and_count)
    if not opened.db.alone:
        opened.db.write_now(lambda conn: conn.execute(text("ANALYZE")).rowcount)
    opened.db.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
