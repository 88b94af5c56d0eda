"""Rows, files and kernel of a test site beside each other: `clean()` raises unless they agree."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import dict_row

from agent.host import sysfs
from agent.luks.model import Secret, passphrase
from coordinator.keys import kek as kek_file
from coordinator.lifecycle.attachment import ATTACHMENT
from coordinator.lifecycle.image import IMAGE
from coordinator.lifecycle.snapshot import SNAPSHOT
from coordinator.lifecycle.volume import VOLUME
from tests.support import leftover

if TYPE_CHECKING:
    from tests.support.site import Site

GIB = 1 << 30
NO_DATA = {"error", "queued", "killed"}
Row = dict[str, Any]

# What is told of the image cache, of types and of the site is no operation.
BY_ROW = ("transfer_", "image_volume_cache.", "volume_type", "qos_specs.", "services.")


class Truths:
    """Reads the databases beside the running processes, and the folders and devices behind their backs."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def rows(self, query: str, *values: object) -> list[Row]:
        """Rows of the coordinator's database."""
        if self._site.database is not None:
            with psycopg.connect(self._site.database, row_factory=dict_row) as db:
                return list(db.execute(query.replace("?", "%s"), values))
        return _rows(self._site.layout.coordinator_state / "coordinator.db", query, values)

    def journal(self, host: str, query: str) -> list[Row]:
        return _rows(self._site.layout.agent_state(host) / "journal.db", query, ())

    def live(self, table: str) -> list[Row]:
        return self.rows(f"SELECT * FROM {table} WHERE NOT deleted")

    def opening(self, key_id: str) -> bytes:
        """The passphrase that a secret of the key store is."""
        (row,) = self.rows("SELECT * FROM secrets WHERE id = ?", key_id)
        bound_to = f"brickyard-secret:{key_id}:{row['project_id']}".encode()
        for kek in kek_file.load(self._site.layout.coordinator_state / "kek"):
            value = kek.open(bytes(row["nonce"]), bytes(row["sealed"]), bound_to)
            if value is not None:
                return passphrase(Secret(row["type"], value))
        raise AssertionError(f"secret {key_id} can not be opened")

    def clean(self, *, attention: int = 0) -> None:
        """Nothing at work, every status stable, each truth equal to the others, nothing left over anywhere."""
        self._site.api.settle()
        self._statuses(attention)
        for host in self._site.hosts:
            self._files(host)
            self._devices(host)
            # The host may be watched by a coordinator that died, until that counts as dead.
            _eventually(lambda host=host: self._jobs(host), 30)  # type: ignore[misc]
        self._sums()
        _eventually(self._keys)  # those of images at a service go by themselves
        self._events()

    def _statuses(self, attention: int) -> None:
        tables = {"volumes": VOLUME, "snapshots": SNAPSHOT, "images": IMAGE, "attachments": ATTACHMENT}
        for table, lifecycle in tables.items():
            column = "attach_status" if table == "attachments" else "status"
            wrong = [row for row in self.live(table) if row[column] not in lifecycle.stable]
            assert not wrong, f"{table} in between: {wrong}"
        for status in ("attaching", "detaching", "reserved"):
            assert not [row for row in self.live("volumes") if row["status"] == status], status
        waiting = self.rows("SELECT * FROM operations WHERE state = 'needs-attention'")
        assert len(waiting) == attention, waiting
        assert not self.rows("SELECT * FROM operations WHERE state IN ('running', 'undoing')")

    def _files(self, host: str) -> None:
        layout = self._site.layout
        volumes = {
            row["id"]: row["device_bytes"]
            for row in self.live("volumes")
            if row["host_id"] == host and row["status"] not in NO_DATA
        }
        places = {row["id"]: row["host_id"] for row in self.rows("SELECT id, host_id FROM volumes")}
        snapshots = {
            row["id"]: row["device_bytes"]
            for row in self.live("snapshots")
            if places[row["volume_id"]] == host and row["status"] not in NO_DATA
        }
        images = {row["id"]: row["size"] for row in self.live("images") if row["host_id"] == host}
        kept = layout.folder / host / "images"
        assert self.stored(host) == (volumes, snapshots, {})
        assert sizes(kept / "images") == images
        assert sizes(kept / "incoming") == {}
        assert sizes(layout.agent_state(host) / "spool") == {}
        assert sizes(layout.agent_state(host) / "locks") == {}

    def stored(self, host: str) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        """Volumes, snapshots and what is half-made on the host's back end, with their sizes."""
        held = self._site.layout.volumes(host)
        return sizes(held / "volumes"), sizes(held / "snapshots"), sizes(held / "partial")

    def _devices(self, host: str) -> None:
        rows = {
            row["id"]: row
            for row in self.live("attachments")
            if row["host_id"] == host and row["owner"] == "agent" and row["attach_status"] == "attached"
        }
        places = {row["id"]: row["host_id"] for row in self.live("volumes")}
        told = self.journal(host, "SELECT attachment_id, volume_id, device, wanted FROM attachments")
        kept = {row["attachment_id"]: row["volume_id"] for row in told}
        assert kept == {key: row["volume_id"] for key, row in rows.items()}, (told, rows)
        assert all(row["wanted"] and row["device"] for row in told), told
        below = str(self._site.layout.volumes(host))
        bound = Counter(Path(loop.backing_file).name for loop in sysfs.loop_devices() if below in loop.backing_file)
        here = [row["volume_id"] for row in rows.values() if row["transport"] is None]
        offered = self.journal(host, "SELECT DISTINCT volume_id, transport FROM exports")
        # Images of a cluster are offered by the cluster: no device of the host takes part.
        by_device = {row["volume_id"] for row in offered if row["transport"] != "rbd"}
        assert bound == Counter([*here, *by_device])
        assert {row["volume_id"] for row in offered} == {
            row["volume_id"]
            for row in self.live("attachments")
            if row["transport"] is not None and places[row["volume_id"]] == host
        }

    def _jobs(self, host: str) -> None:
        left = self.journal(host, "SELECT key, kind, state, result, error FROM jobs")
        assert not left, f"jobs that {host} was never told to forget: {left}"

    def _sums(self) -> None:
        volumes, snapshots = self.live("volumes"), self.live("snapshots")
        for pool in self.rows("SELECT * FROM pools"):
            held = sum(row["device_bytes"] for row in volumes if row["pool_id"] == pool["id"])
            told = pool["reported"]
            foreign = (json.loads(told) if isinstance(told, str) else told or {}).get("foreign_bytes", 0)
            assert pool["provisioned_bytes"] == held + foreign, (pool["id"], pool["provisioned_bytes"], held, foreign)
        volumes = [row for row in volumes if row["use_quota"]]
        gigabytes = sum(row["size"] + row["reserved_size"] for row in volumes)
        assert not any(row["reserved_size"] for row in volumes)
        used = {
            "volumes": len(volumes),
            "snapshots": len(snapshots),
            "gigabytes": gigabytes + sum(row["volume_size"] for row in snapshots),
        }
        assert self._site.api.usage() == used

    def _keys(self) -> None:
        used = [
            row["encryption_key_id"]
            for table in ("volumes", "snapshots")
            for row in self.live(table)
            if row["encryption_key_id"]
        ]
        used += [
            row["value"]
            for row in self.rows(
                "SELECT value FROM image_properties p JOIN images i ON i.id = p.image_id "
                "WHERE p.key = 'os_encrypt_key_id' AND NOT i.deleted"
            )
        ]
        used += [row["key_id"] for row in self.rows("SELECT key_id FROM registered_images WHERE key_id IS NOT NULL")]
        theirs = self.rows("SELECT id, name FROM secrets WHERE project_id != '' AND type != 'certificate'")
        kept = [row["id"] for row in theirs if row["name"] != "registered" or row["id"] in used]  # clones keep a name
        assert sorted(kept) == sorted(used), (set(kept) - set(used), set(used) - set(kept))

    def _events(self) -> None:
        """Each operation was announced once, and its end once."""
        ends = {"done": "end", "failed": "error", "cancelled": "error", "needs-attention": "attention"}
        wanted: Counter[tuple[str, str]] = Counter()
        for row in self.rows("SELECT kind, state, request_id FROM operations"):
            wanted[f"{row['kind']}.start", row["request_id"]] += 1
            wanted[f"{row['kind']}.{ends[row['state']]}", row["request_id"]] += 1
        told = Counter((row["type"], row["request_id"]) for row in self.rows("SELECT type, request_id FROM events"))
        # Attachments of others are made and ended by a row alone, and so is a type given where the data stay, or a
        # volume to another project.
        by_row = ("attach_volume.end", "detach_volume.end", "retype_volume.end")
        others = {key for key in told if key[0] in by_row} - set(wanted)
        others |= {key for key in told if key[0].startswith(BY_ROW)}
        assert {key: count for key, count in told.items() if key not in others} == wanted

    def eventually(self, check: Callable[[], None], seconds: float = 10) -> None:
        """Until `check` passes; what it last raised when that takes too long."""
        _eventually(check, seconds)

    def processes(self) -> list[str]:
        """Processes that still have a file of the site open though it was stopped."""
        below = str(self._site.folder)
        found = []

        def none_left() -> None:
            found[:] = [text for pid, text in commands() if int(pid) != os.getpid() and _touches(pid, below)]
            assert not found

        with suppress(AssertionError):
            _eventually(none_left, 5)
        return found

    def unbind(self) -> None:
        """Remove devices that a failed test left."""
        leftover.unbind(self._site.folder)


def sizes(folder: Path) -> dict[str, int]:
    """Files below a folder, with their sizes; nothing when there is no such folder."""
    if not folder.is_dir():
        return {}
    return {entry.name: entry.stat().st_size for entry in folder.iterdir()}


def commands() -> list[tuple[str, str]]:
    """All processes: pid and command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found.append((path.name, f"{path.name} {words}"))
    return found


def holders(path: str) -> list[str]:
    """Processes that have a file open at or below `path`."""
    return [process.name for process in Path("/proc").glob("[0-9]*") if _touches(process.name, path)]


def _touches(pid: str, below: str) -> bool:
    with suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if str(fd.readlink()).startswith(below):
                    return True
    return False


def _eventually(check: Callable[[], None], seconds: float = 60) -> None:
    """Until `check` passes; what it last raised when that takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _rows(path: Path, query: str, values: tuple[object, ...]) -> list[Row]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(query, values)]
