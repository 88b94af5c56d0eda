"""Fill a coordinator's fresh state folder with volumes: `_seed.py STATE_DIR COUNT`, before its first start.

Every volume has one pair of metadata; one in ten is attached. They belong to the project of the administrator.
"""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

from coordinator.identity.bootstrap import ADMIN_PROJECT_ID, ADMIN_USER_ID
from coordinator.server.settings import CoordinatorSettings
from coordinator.server.start import open_state

_NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
_ID = "printf('00000000-0000-4000-8000-%012x', i)"
_TIME = "strftime('%Y-%m-%d %H:%M:%S', 1750000000 + i, 'unixepoch') || '.000000'"
_ATTACHED = "i % 10 = 0"
_VOLUMES = f"""{_NUMBERS}
INSERT INTO volumes (id, project_id, user_id, name, size, status, attach_status, host_id, backend, pool, pool_id,
                     volume_type_id, device_bytes, usable_bytes, created_at, updated_at, launched_at)
SELECT {_ID}, :project, :user, 'volume-' || i, 1 + i % 8,
       CASE WHEN {_ATTACHED} THEN 'in-use' ELSE 'available' END,
       CASE WHEN {_ATTACHED} THEN 'attached' ELSE 'detached' END,
       'seeded', 'files', 'files', 'seeded@files#files', :type, (1 + i % 8) << 30, (1 + i % 8) << 30,
       {_TIME}, {_TIME}, {_TIME} FROM n"""
_METADATA = f"{_NUMBERS} INSERT INTO volume_metadata SELECT {_ID}, 'purpose', 'bench-' || i % 7 FROM n"
_ATTACHMENTS = f"""{_NUMBERS}
INSERT INTO attachments (id, volume_id, project_id, owner, instance_id, attached_host, mountpoint, attach_mode,
                         attach_status, attach_time, created_at)
SELECT printf('00000000-0000-4000-9000-%012x', i), {_ID}, :project, 'external', {_ID}, 'seeded', '/dev/vdb', 'rw',
       'attached', {_TIME}, {_TIME} FROM n WHERE {_ATTACHED}"""


def volume_id(number: int) -> str:
    """The id of the volume with this number (from 1)."""
    return f"00000000-0000-4000-8000-{number:012x}"


def main(state_dir: Path, count: int) -> None:
    settings = CoordinatorSettings.model_validate({"coordinator": {"state_dir": str(state_dir)}})
    open_state(settings).db.close()
    conn = sqlite3.connect(settings.database_file, isolation_level=None)
    type_id = conn.execute("SELECT id FROM volume_types WHERE NOT deleted").fetchone()[0]
    values = {"count": count, "project": ADMIN_PROJECT_ID, "user": ADMIN_USER_ID, "type": type_id}
    conn.execute("BEGIN IMMEDIATE")
    for statement in (_VOLUMES, _METADATA, _ATTACHMENTS):
        conn.execute(statement, values)
    conn.execute("COMMIT")
    conn.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
