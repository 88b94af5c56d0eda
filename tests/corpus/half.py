"""Half-done work, frozen: the rows of one operation in the coordinator's database, its rows in the agent's journal, and
the files it had made. Taken from a site whose processes were killed, put into a site that is stopped."""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.support.site import Site

HERE = Path(__file__).parent
KEK = base64.b64encode(b"a key of no worth, for the tests").decode()
DEFAULT_TYPE = "@default-type@"
# How a row of a table is about one of the ids that an operation names.
ABOUT = {
    "volumes": ("id",),
    "snapshots": ("id",),
    "attachments": ("id",),
    "images": ("id",),
    "image_properties": ("image_id",),
    "generations": ("volume_id",),
    "secrets": ("id",),
    "volume_types": ("id",),
    "type_encryption": ("volume_type_id",),
}
NAMED = ("volume_id", "snapshot_id", "source_volid", "image_id", "encryption_key_id", "volume_type_id")
JOURNAL = {
    "jobs": "operation IN ({})",
    "epochs": "operation IN ({})",
    "tombstones": "substr(key, 1, 36) IN ({})",
    "attachments": "volume_id IN ({})",
    "generations": "volume_id IN ({})",
}
Row = dict[str, Any]
Tables = dict[str, list[Row]]


def kek_file(site: Site) -> Path:
    """The key-encryption key that the frozen secrets are sealed with, as the coordinator's user can read it."""
    path = site.folder / "kek"
    path.write_text(KEK + "\n")
    path.chmod(0o400)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
    return path


def new_site() -> Site:
    """One host that keeps images and volumes; what is put into its rows is in no sum."""
    site = Site(agents=1, sets=("quota.driver=dynamic",))
    site.coordinator.sets = (*site.coordinator.sets, f"keys.kek_file={kek_file(site)}")
    return site


def places(site: Site) -> dict[str, Path]:
    host = site.volume_host
    held, kept = site.layout.volumes(host), site.layout.folder / host / "images"
    folders = {name: held / name for name in ("volumes", "snapshots", "partial")}
    return folders | {name: kept / name for name in ("images", "incoming")}


def taken(site: Site) -> dict[str, Any] | None:
    """What there is of the one operation that has not ended; None when all have. All processes are dead."""
    database = site.layout.coordinator_state / "coordinator.db"
    with closing(connect(database)) as db:
        found: Tables = {"operations": rows(db, "operations WHERE state IN ('running', 'undoing')")}
        if not found["operations"]:
            return None
        assert len(found["operations"]) == 1, found
        operation = found["operations"][0]
        found["events"] = rows(db, "events WHERE request_id = ?", operation["request_id"])
        args = json.loads(operation["args"])
        ids = {operation["resource_id"], *_ids(args)}
        for _ in range(3):  # a clone's source, the snapshot's volume, its key, …
            ids |= _related(db, ids)
        for table, columns in ABOUT.items():
            found[table] = [row for row in rows(db, table) if any(row[column] in ids for column in columns)]
        default = rows(db, "volume_types WHERE name = '__DEFAULT__'")[0]["id"]
    found["volume_types"] = [row for row in found["volume_types"] if row["id"] != default]
    with closing(connect(site.layout.agent_state(site.volume_host) / "journal.db")) as db:
        marks = ", ".join("?" * (len(ids) + 1))
        journal = {
            table: rows(db, f"{table} WHERE {where.format(marks)}", operation["id"], *ids)
            for table, where in JOURNAL.items()
        }
    files = {
        f"{name}/{path.name}": path.stat().st_size
        for name, folder in places(site).items()
        for path in sorted(folder.glob("*"))
        if path.name in ids
    }
    # An image whose bytes were lost on purpose is not needed to undo what failed for that.
    found["images"] = [row for row in found["images"] if row["status"] != "active" or f"images/{row['id']}" in files]
    text = json.dumps({"coordinator": found, "journal": journal, "files": files})
    return dict(json.loads(text.replace(default, DEFAULT_TYPE)))


def _ids(args: dict[str, Any]) -> set[str]:
    image = args.get("image") or {}
    named = [args.get(name) for name in ("volume_id", "attachment_id", "origin_id")]
    return {str(one) for one in [*named, image.get("id")] if one}


def _related(db: sqlite3.Connection, ids: set[str]) -> set[str]:
    found: set[str] = set()
    for table in ("volumes", "snapshots", "attachments"):
        for row in rows(db, table):
            if row["id"] in ids:
                found |= {str(row[name]) for name in NAMED if row.get(name)}
    keys = rows(db, "image_properties WHERE key = 'os_encrypt_key_id'")
    return found | {str(row["value"]) for row in keys if row["image_id"] in ids}


def put(site: Site, cases: list[dict[str, Any]]) -> None:
    """Into a site that was started once and is stopped now."""
    now = time.time()
    with closing(connect(site.layout.coordinator_state / "coordinator.db")) as db, db:
        db.execute("PRAGMA foreign_keys = OFF")
        default = rows(db, "volume_types WHERE name = '__DEFAULT__'")[0]["id"]
        order = ("volume_types", "type_encryption", "volumes", *(name for name in cases[0]["coordinator"]))
        for table in dict.fromkeys(order):
            for case in cases:
                for row in case["coordinator"][table]:
                    kept = {name: value for name, value in row.items() if (table, name) != ("events", "seq")}
                    _insert(db, table, json.loads(json.dumps(kept).replace(DEFAULT_TYPE, default)))
    with closing(connect(site.layout.agent_state(site.volume_host) / "journal.db")) as db, db:
        for case in cases:
            for table, found in case["journal"].items():
                for row in found:
                    _insert(db, table, row | {name: now for name in ("created_at", "updated_at") if name in row})
    folders = places(site)
    for case in cases:
        for name, size in case["files"].items():
            folder, _, file = name.partition("/")
            path = folders[folder] / file
            # What is in a volume does not matter here; an image holds what its checksum says.
            if folder == "images":
                path.write_bytes(b"x" * size)
            else:
                path.touch()
                os.truncate(path, size)
            path.chmod(0o600)
            owner = folders[folder].stat()
            os.chown(path, owner.st_uid, owner.st_gid)


def connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path)
    db.row_factory = sqlite3.Row
    return db


def rows(db: sqlite3.Connection, query: str, *values: object) -> list[Row]:
    found = [dict(row) for row in db.execute(f"SELECT * FROM {query}", values)]
    return [{key: _frozen(value) for key, value in row.items()} for row in found]


def _frozen(value: Any) -> Any:
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _insert(db: sqlite3.Connection, table: str, row: Row) -> None:
    values = [base64.b64decode(value["b64"]) if isinstance(value, dict) else value for value in row.values()]
    columns = ", ".join(row)
    db.execute(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})", values)


def saved(release: str, kind: str, cases: dict[str, dict[str, Any]]) -> None:
    """The coordinator's half below `operations`, the agent's below `journal`, joined by the names of the cases."""
    for folder, parts in (("operations", ("coordinator", "ends")), ("journal", ("journal", "files"))):
        path = HERE / folder / release / f"{kind}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        halves = {name: {part: case[part] for part in parts} for name, case in cases.items()}
        path.write_text(json.dumps(halves, indent=1, sort_keys=True) + "\n")


def loaded(release: str) -> dict[str, dict[str, Any]]:
    """All cases of a release, by kind and name."""
    found = {}
    for path in sorted((HERE / "operations" / release).glob("*.json")):
        journal = json.loads((HERE / "journal" / release / path.name).read_text())
        for name, case in json.loads(path.read_text()).items():
            found[f"{path.stem}: {name}"] = case | journal[name]
    return found


def releases() -> list[str]:
    return sorted(path.name for path in (HERE / "operations").iterdir())
