"""What the journal knows of jobs: plain functions on its database, each one part of a transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlite_utils import Database

from agent.jobs.errors import KeyReused, StaleEpoch, Tombstoned
from agent.wire.jobs import TERMINAL, ErrorBody, JobRequest, JobState, JobStatus, Progress

KEEP_EPOCHS_S = 30 * 86400.0
# What is told while a job runs may come to the journal after its end, and must not take that back.
_GOING_ON = "state NOT IN ('done', 'failed', 'cancelled', 'fenced')"

_COLUMNS = (
    "key, operation, step, attempt, epoch, kind, version, args, secret_names, state, seq, progress, checkpoint, "
    "result, error, request_id, cancel_requested, created_at, updated_at, boot_id, lease_s"
)
_INSERT = f"INSERT INTO jobs ({_COLUMNS}) VALUES ({', '.join('?' * 21)})"  # noqa: S608
_SELECT = f"SELECT {_COLUMNS} FROM jobs"  # noqa: S608
_RAISE_EPOCH = (
    "INSERT INTO epochs (operation, epoch, updated_at) VALUES (?, ?, ?) ON CONFLICT (operation) DO UPDATE "
    "SET epoch = excluded.epoch, updated_at = excluded.updated_at WHERE excluded.epoch >= epochs.epoch"
)


@dataclass(frozen=True, slots=True)
class Record:
    """One job as it lies in the journal; never a secret, only the names of those it was given."""

    key: str
    epoch: int
    kind: str
    version: int
    args: dict[str, Any]
    secret_names: tuple[str, ...]
    state: JobState
    seq: int
    request_id: str
    cancel_requested: bool = False
    progress: dict[str, Any] | None = None
    checkpoint: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    created_at: float = 0.0
    updated_at: float = 0.0
    boot_id: str = ""
    lease_s: float | None = None

    @property
    def operation(self) -> str:
        return self.key.split("/", 1)[0]

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    def status(self) -> JobStatus:
        return JobStatus(
            key=self.key,
            epoch=self.epoch,
            kind=self.kind,
            state=self.state,
            seq=self.seq,
            progress=Progress.model_validate(self.progress) if self.progress else None,
            result=self.result,
            error=ErrorBody.model_validate(self.error) if self.error else None,
        )


def fresh(request: JobRequest, seq: int, boot_id: str) -> Record:
    """The record of a job that was just asked for."""
    now = time.time()
    return Record(
        key=request.key,
        epoch=request.epoch,
        kind=request.kind,
        version=request.version,
        args=request.args,
        secret_names=tuple(sorted(request.secrets)),
        state="queued",
        seq=seq,
        request_id=request.request_id,
        created_at=now,
        updated_at=now,
        boot_id=boot_id,
        lease_s=request.lease_s,
    )


def accept(db: Database, record: Record) -> Record:
    """Store a new job, or return the one that has this key. StaleEpoch, Tombstoned, KeyReused."""
    raise_epoch(db, record.operation, record.epoch)
    dead = db.execute("SELECT reason FROM tombstones WHERE key = ?", (record.key,)).fetchone()
    if dead is not None:
        raise Tombstoned(key=record.key, reason=dead[0])
    known = find(db, record.key)
    if known is None:
        db.execute(_INSERT, _row(record))
        return record
    if (known.kind, known.version, known.args) != (record.kind, record.version, record.args):
        raise KeyReused(key=record.key)
    if known.epoch != record.epoch:
        db.execute("UPDATE jobs SET epoch = ? WHERE key = ?", (record.epoch, record.key))
    return known


def raise_epoch(db: Database, operation: str, epoch: int) -> None:
    """Keep the highest epoch of the operation; StaleEpoch when a higher one is known."""
    if db.execute(_RAISE_EPOCH, (operation, epoch, time.time())).rowcount == 1:
        return
    known = db.execute("SELECT epoch FROM epochs WHERE operation = ?", (operation,)).fetchone()
    raise StaleEpoch(operation=operation, known=known[0], given=epoch)


def cancel(db: Database, key: str, epoch: int) -> Record | None:
    """Note that the job is no longer wanted; of an unknown key, that it must never begin. The record or None."""
    raise_epoch(db, key.split("/", 1)[0], epoch)
    known = find(db, key)
    if known is None:
        bury(db, key, epoch, "cancelled")
    elif not known.terminal:
        db.execute("UPDATE jobs SET cancel_requested = 1, epoch = ? WHERE key = ?", (epoch, key))
    return known


def bury(db: Database, key: str, epoch: int, reason: str) -> None:
    """Lay a tombstone for a key; the first one stays."""
    db.execute("INSERT OR IGNORE INTO tombstones VALUES (?, ?, ?, ?)", (key, epoch, reason, time.time()))


def buried(db: Database, key: str) -> tuple[int, str] | None:
    """Epoch and reason of a key's tombstone."""
    row = db.execute("SELECT epoch, reason FROM tombstones WHERE key = ?", (key,)).fetchone()
    return None if row is None else (row[0], row[1])


def find(db: Database, key: str) -> Record | None:
    row = db.execute(f"{_SELECT} WHERE key = ?", (key,)).fetchone()
    return None if row is None else _record(row)


def unfinished(db: Database) -> list[Record]:
    """All jobs without an end, in the order they were accepted."""
    rows = db.execute(f"{_SELECT} WHERE state NOT IN ('done', 'failed', 'cancelled', 'fenced') ORDER BY rowid")
    return [_record(row) for row in rows]


def everything(db: Database, limit: int = 1000) -> list[Record]:
    """The newest jobs, finished or not."""
    return [_record(row) for row in db.execute(f"{_SELECT} ORDER BY rowid DESC LIMIT ?", (limit,))]


def ended(db: Database, limit: int = 1000) -> list[str]:
    """Keys of the newest jobs that have ended and were not acknowledged."""
    query = f"SELECT key FROM jobs WHERE NOT ({_GOING_ON}) ORDER BY rowid DESC LIMIT ?"  # noqa: S608
    return [str(row[0]) for row in db.execute(query, (limit,))]


def note_progress(db: Database, notes: Iterable[tuple[str, int, dict[str, Any] | None]]) -> None:
    """Write (key, seq, progress) of running jobs."""
    now = time.time()
    for key, seq, progress in notes:
        db.execute(
            f"UPDATE jobs SET state = 'running', seq = ?, progress = ?, updated_at = ? WHERE key = ? AND {_GOING_ON}",  # noqa: S608
            (seq, _json(progress), now, key),
        )


def note_checkpoint(db: Database, key: str, checkpoint: dict[str, Any]) -> None:
    db.execute(
        f"UPDATE jobs SET state = 'running', checkpoint = ?, updated_at = ? WHERE key = ? AND {_GOING_ON}",  # noqa: S608
        (_json(checkpoint), time.time(), key),
    )


def note_waiting(db: Database, key: str, seq: int) -> None:
    """The job waits for its secrets to be posted again."""
    db.execute(f"UPDATE jobs SET state = 'needs-secret', seq = ? WHERE key = ? AND {_GOING_ON}", (seq, key))  # noqa: S608


def finish(db: Database, ended: Record) -> None:
    """Write the end of a job: state, seq, progress, result, error. Its checkpoint is of no more use."""
    db.execute(
        "UPDATE jobs SET state = ?, seq = ?, progress = ?, result = ?, error = ?, checkpoint = NULL, updated_at = ? "
        "WHERE key = ?",
        (
            ended.state, ended.seq, _json(ended.progress), _json(ended.result), _json(ended.error), time.time(),
            ended.key,
        ),
    )  # fmt: skip


def acknowledge(db: Database, keys: Iterable[str]) -> list[str]:
    """Drop the finished jobs among `keys`; a late copy of their POST finds a tombstone. The keys dropped."""
    dropped = []
    for key in keys:
        known = find(db, key)
        if known is not None and known.terminal:
            db.execute("DELETE FROM jobs WHERE key = ?", (key,))
            bury(db, key, known.epoch, "acknowledged")
            dropped.append(key)
    return dropped


def prune(db: Database) -> None:
    """Forget finished jobs, epochs and tombstones after 30 days; epochs only of operations without a job here.

    So are generations of volumes that this host has nothing of: those of other hosts' volumes would stay for ever, as
    nobody tells this one when such a volume is deleted.
    """
    before = time.time() - KEEP_EPOCHS_S
    db.execute(
        "DELETE FROM jobs WHERE updated_at < ? AND state IN ('done', 'failed', 'cancelled', 'fenced')", (before,)
    )
    db.execute("DELETE FROM epochs WHERE updated_at < ? AND operation NOT IN (SELECT operation FROM jobs)", (before,))
    db.execute("DELETE FROM tombstones WHERE created_at < ?", (before,))
    for generations, held in (("generations", "attachments"), ("export_generations", "exports")):
        unused = f"volume_id NOT IN (SELECT volume_id FROM {held})"  # noqa: S608
        db.execute(f"DELETE FROM {generations} WHERE updated_at < ? AND {unused}", (before,))  # noqa: S608


def count_start(db: Database) -> int:
    """How often an agent was started on this journal, this time included."""
    db.execute("INSERT INTO starts VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET count = count + 1")
    return int(db.execute("SELECT count FROM starts").fetchone()[0])


def _row(record: Record) -> tuple[Any, ...]:
    operation, step, attempt = record.key.split("/")
    return (
        record.key, operation, step, int(attempt), record.epoch, record.kind, record.version, _json(record.args),
        _json(list(record.secret_names)), record.state, record.seq, _json(record.progress),
        _json(record.checkpoint), _json(record.result), _json(record.error), record.request_id,
        int(record.cancel_requested), record.created_at, record.updated_at, record.boot_id, record.lease_s,
    )  # fmt: skip


def _record(row: tuple[Any, ...]) -> Record:
    return Record(
        key=row[0], epoch=row[4], kind=row[5], version=row[6], args=json.loads(row[7]),
        secret_names=tuple(json.loads(row[8] or "[]")), state=row[9], seq=row[10], progress=_loaded(row[11]),
        checkpoint=_loaded(row[12]), result=_loaded(row[13]), error=_loaded(row[14]), request_id=row[15] or "",
        cancel_requested=bool(row[16]), created_at=row[17], updated_at=row[18], boot_id=row[19] or "",
        lease_s=row[20],
    )  # fmt: skip


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, separators=(",", ":"))


def _loaded(text: str | None) -> Any:
    return None if text is None else json.loads(text)
