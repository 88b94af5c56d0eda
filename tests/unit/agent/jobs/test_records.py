"""Any order of posts, cancels, ends and acknowledgements, told by any epoch: what may never happen, never does."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlite_utils import Database

from agent.jobs import records
from agent.jobs.errors import KeyReused, StaleEpoch, Tombstoned
from agent.jobs.schema import migrations
from tests.unit.agent.jobs.support import create

keys = st.builds(lambda operation, attempt: f"{operation}/make/{attempt}", st.sampled_from("ab"), st.integers(1, 3))
epochs = st.integers(1, 4)


class Jobs(RuleBasedStateMachine):
    """`begun` counts how often a key was stored as a new job; `highest` is what each operation was told."""

    def __init__(self) -> None:
        super().__init__()
        self.db = Database(sqlite3.connect(":memory:"), execute_plugins=False, strict=True)
        migrations.apply(self.db)
        self.begun: dict[str, int] = {}
        self.dead: set[str] = set()
        self.highest: dict[str, int] = {}

    def told(self, key: str, epoch: int) -> bool:
        """Whether a call with this epoch is in time; it then counts."""
        operation = key.split("/", maxsplit=1)[0]
        if epoch < self.highest.get(operation, 0):
            return False
        self.highest[operation] = epoch
        return True

    @rule(key=keys, epoch=epochs, size=st.sampled_from([1, 2]))
    def post(self, key: str, epoch: int, size: int) -> None:
        before = records.find(self.db, key)
        try:
            with self.db.atomic():
                stored = records.accept(self.db, records.fresh(create(key, epoch, size=size), 1, "boot"))
        except StaleEpoch:
            assert epoch < self.highest[key.split("/", maxsplit=1)[0]]
            return
        except Tombstoned:
            assert key in self.dead
            return
        except KeyReused:
            assert before is not None
            assert before.args["size_bytes"] != size
            return
        assert self.told(key, epoch)
        assert key not in self.dead
        assert stored.args["size_bytes"] == size
        if before is None:
            self.begun[key] = self.begun.get(key, 0) + 1

    @rule(key=keys, epoch=epochs)
    def cancel(self, key: str, epoch: int) -> None:
        try:
            with self.db.atomic():
                known = records.cancel(self.db, key, epoch)
        except StaleEpoch:
            assert epoch < self.highest[key.split("/", maxsplit=1)[0]]
            return
        assert self.told(key, epoch)
        after = records.find(self.db, key)
        if known is None:
            self.dead.add(key)
            assert after is None
        else:
            assert after is not None
            assert after.terminal or after.cancel_requested

    @rule(key=keys, state=st.sampled_from(["done", "failed", "cancelled"]))
    def end(self, key: str, state: str) -> None:
        known = records.find(self.db, key)
        if known is not None and not known.terminal:
            ended = replace(known, state=state, seq=known.seq + 1)  # type: ignore[arg-type]
            records.finish(self.db, ended)
            assert records.find(self.db, key) == replace(ended, updated_at=records.find(self.db, key).updated_at)  # type: ignore[union-attr]

    @rule(key=keys)
    def acknowledge(self, key: str) -> None:
        known = records.find(self.db, key)
        dropped = records.acknowledge(self.db, [key])
        assert bool(dropped) == (known is not None and known.terminal)
        if dropped:
            self.dead.add(key)

    @invariant()
    def each_key_begins_once(self) -> None:
        assert all(count == 1 for count in self.begun.values())

    @invariant()
    def the_highest_epoch_is_kept(self) -> None:
        kept = dict(self.db.execute("SELECT operation, epoch FROM epochs").fetchall())
        assert kept == self.highest

    @invariant()
    def unfinished_ones_are_found_in_order(self) -> None:
        found = records.unfinished(self.db)
        assert all(not record.terminal for record in found)
        assert len({record.key for record in found}) == len(found)


Jobs.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestJobs = Jobs.TestCase


def test_what_nobody_acknowledged_expires() -> None:
    db = Database(sqlite3.connect(":memory:"), execute_plugins=False, strict=True)
    migrations.apply(db)
    old = replace(records.fresh(create("a/make/1"), 1, ""), state="done", created_at=1.0, updated_at=1.0)
    running = replace(records.fresh(create("b/make/1"), 1, ""), created_at=1.0, updated_at=1.0)
    for record in (old, running):
        records.accept(db, record)
    db.execute("UPDATE epochs SET updated_at = 1.0")
    records.prune(db)
    assert [record.key for record in records.everything(db)] == ["b/make/1"]
    assert [row[0] for row in db.execute("SELECT operation FROM epochs")] == ["b"]


def test_generations_of_volumes_that_this_host_has_nothing_of_expire() -> None:
    """Those of other hosts' volumes, whose deletion is told to their own host alone."""
    db = Database(sqlite3.connect(":memory:"), execute_plugins=False, strict=True)
    migrations.apply(db)
    now = time.time()
    for table in ("generations", "export_generations"):
        for volume, at in (("used", 1.0), ("gone", 1.0), ("fresh", now)):
            db.execute(f"INSERT INTO {table} VALUES (?, 1, 1, ?)", (volume, at))
    db.execute(
        "INSERT INTO attachments (attachment_id, volume_id, backend, incarnation, sequence, mode, wanted) "
        "VALUES ('a', 'used', 'files', 1, 1, 'rw', 1)"
    )
    db.execute("INSERT INTO exports (name, volume_id, transport) VALUES ('e', 'used', 'iscsi')")
    records.prune(db)
    for table in ("generations", "export_generations"):
        kept = {row[0] for row in db.execute(f"SELECT volume_id FROM {table}")}
        assert kept == {"used", "fresh"}


def test_a_late_word_of_progress_does_not_undo_the_end() -> None:
    """Progress is written by a task of its own, which may come to the journal after the end of its job."""
    db = Database(sqlite3.connect(":memory:"), execute_plugins=False, strict=True)
    migrations.apply(db)
    record = records.fresh(create("a/make/1"), 1, "")
    records.accept(db, record)
    records.finish(db, replace(record, state="done", seq=9))
    records.note_progress(db, [(record.key, 5, {"phase": "copy", "done": 1, "total": 2})])
    records.note_checkpoint(db, record.key, {"copied": 1})
    records.note_waiting(db, record.key, 5)
    kept = records.find(db, record.key)
    assert kept is not None
    assert (kept.state, kept.seq, kept.progress, kept.checkpoint) == ("done", 9, None, None)
    assert records.acknowledge(db, [record.key]) == [record.key]
