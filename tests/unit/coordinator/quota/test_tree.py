"""Quota in a tree of projects: the worked examples, what has no limit, and two who change or spend at once."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from agent.base.errors import BrickyardError
from agent.base.ids import new_id
from coordinator.quota import guard, limits, tree
from coordinator.quota.errors import GigabytesLimit, VolumeLimit
from coordinator.quota.settings import QuotaSettings
from coordinator.quota.tree import AlreadyBeyond, BelowUse, BeyondParent, HandedDown, HierarchyUnknown
from coordinator.state import hierarchy, types
from coordinator.state.database import Database
from coordinator.state.transition import enter, move
from coordinator.state.usage import RULES, Rules
from tests.support import databases

ABOVE = {
    "production": (),
    "cms": ("production",),
    "atlas": ("production",),
    "computing": ("cms", "production"),
    "visualisation": ("cms", "production"),
}


@pytest.fixture(params=[False, True], ids=["dynamic", "stored"])
def db(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Database]:
    database = databases.fresh(tmp_path / "state.db")
    database.engine.update_execution_options(**{RULES: Rules(kept=request.param, nested=True)})
    yield database
    database.close()


def grown(db: Database, above: dict[str, tuple[str, ...]], **given: int) -> None:
    """These projects, with limits of gigabytes in this order and no others."""
    for project, over in above.items():
        db.write_now(lambda conn, project=project, over=over: hierarchy.learn(conn, project, over))
    for project, limit in given.items():
        values = {"gigabytes": limit, "volumes": -1, "snapshots": -1}
        db.write_now(lambda conn, project=project, values=values: limits.put(conn, project, values))


def spend(conn: Connection, project: str, size: int, type_id: str | None = None) -> str:
    """As a create does it."""
    name = types.get(conn, type_id).name if type_id is not None else None
    limits.check(conn, project, name, volumes=1, gigabytes=size, volume_size=size)
    values = {"id": new_id(), "project_id": project, "user_id": "u", "size": size, "volume_type_id": type_id}
    return str(move(conn, "volume", enter(conn, "volume", "create", **values).id, "created").id)


def put(db: Database, project: str, limit: int) -> None:
    db.write_now(lambda conn: limits.put(conn, project, {"gigabytes": limit}))


def handed_down(db: Database, project: str) -> int:
    return db.read_now(lambda conn: limits.allocated(conn, project)).get("gigabytes", 0)


def test_the_example_of_production(db: Database) -> None:
    grown(db, ABOVE, production=1000, cms=300, atlas=400, computing=100, visualisation=150)
    db.write_now(lambda conn: spend(conn, "production", 200))
    db.write_now(lambda conn: spend(conn, "cms", 40))
    assert (handed_down(db, "production"), handed_down(db, "cms")) == (700, 250)
    put(db, "cms", 400)
    assert handed_down(db, "production") == 800
    put(db, "cms", 300)
    with pytest.raises(BeyondParent, match="needs 200 more of project production, which has 100 free"):
        put(db, "cms", 500)
    with pytest.raises(BelowUse, match="below the 290"):
        put(db, "cms", 200)
    assert db.read_now(lambda conn: limits.limits(conn, "cms"))["gigabytes"] == 300
    put(db, "cms", 350)
    with pytest.raises(HandedDown, match="250 gigabytes"):
        db.write_now(lambda conn: limits.reset(conn, "cms"))
    db.write_now(lambda conn: limits.reset(conn, "visualisation"))
    assert handed_down(db, "cms") == 100


def test_the_example_of_three_in_a_row(db: Database) -> None:
    grown(db, {"a": (), "b": ("a",), "c": ("b", "a")}, a=100, b=50, c=10)
    db.write_now(lambda conn: spend(conn, "b", 20))
    db.write_now(lambda conn: spend(conn, "c", 10))
    assert (handed_down(db, "a"), handed_down(db, "b")) == (50, 10)
    put(db, "c", 20)
    assert handed_down(db, "b") == 20
    with pytest.raises(BeyondParent):
        put(db, "c", 60)
    put(db, "c", 10)
    put(db, "b", 40)
    assert handed_down(db, "a") == 40
    with pytest.raises(BelowUse):
        put(db, "b", 20)


def test_a_new_project_below_another_has_nothing_and_one_beside_it_the_default(db: Database) -> None:
    grown(db, ABOVE)
    for project in ("cms", "computing"):
        with pytest.raises(VolumeLimit):
            db.write_now(lambda conn, project=project: spend(conn, project, 1))
    db.write_now(lambda conn: spend(conn, "production", 1))
    found = db.read_now(lambda conn: limits.defaults(conn, "cms"))
    assert {found[name] for name in ("volumes", "gigabytes", "snapshots", "backups", "groups")} == {0}
    assert found["per_volume_gigabytes"] == -1


def test_what_nobody_has_looked_up_is_refused_and_not_taken_for_a_root(db: Database) -> None:
    with pytest.raises(HierarchyUnknown):
        db.write_now(lambda conn: spend(conn, "stranger", 1))
    with pytest.raises(HierarchyUnknown):
        put(db, "stranger", 5)


def test_no_limit_below_is_the_limit_above(db: Database) -> None:
    grown(db, ABOVE, production=100, cms=60, computing=-1, visualisation=20)
    db.write_now(lambda conn: spend(conn, "computing", 30))
    assert handed_down(db, "cms") == 50
    with pytest.raises(GigabytesLimit, match="quota is 60G and 50G has been consumed"):
        db.write_now(lambda conn: spend(conn, "computing", 11))
    with pytest.raises(GigabytesLimit):
        db.write_now(lambda conn: spend(conn, "cms", 11))
    put(db, "cms", -1)
    assert handed_down(db, "production") == 50
    db.write_now(lambda conn: spend(conn, "computing", 50))
    with pytest.raises(GigabytesLimit, match="quota is 100G and 100G"):
        db.write_now(lambda conn: spend(conn, "cms", 1))
    with pytest.raises(BeyondParent, match="project production, which has 0 free"):
        put(db, "visualisation", 21)


def test_limits_of_types_are_shared_out_in_the_same_way(db: Database) -> None:
    grown(db, ABOVE, production=-1, cms=-1, computing=-1)
    gold = db.write_now(lambda conn: types.create(conn, "gold", None))
    db.write_now(lambda conn: limits.put(conn, "production", {"volumes_gold": 3}))
    db.write_now(lambda conn: limits.put(conn, "cms", {"volumes_gold": 2}))
    with pytest.raises(BeyondParent, match="volumes_gold"):
        db.write_now(lambda conn: limits.put(conn, "cms", {"volumes_gold": 4}))
    for _ in range(2):
        db.write_now(lambda conn: spend(conn, "computing", 1, gold.id))
    with pytest.raises(VolumeLimit, match="volumes_gold"):
        db.write_now(lambda conn: spend(conn, "computing", 1, gold.id))
    db.write_now(lambda conn: spend(conn, "production", 1, gold.id))
    with pytest.raises(VolumeLimit, match="volumes_gold"):
        db.write_now(lambda conn: spend(conn, "production", 1, gold.id))


def test_two_raises_at_once_and_one_wins(db: Database) -> None:
    grown(db, ABOVE, production=100, cms=40, atlas=40)

    def raised(project: str) -> str:
        try:
            put(db, project, 60)
        except BeyondParent as refused:
            return refused.code
        return "raised"

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(raised, ("cms", "atlas"))) == ["quota.beyond-parent", "raised"]


@pytest.mark.only("postgresql")
def test_a_limit_that_is_given_while_one_waits_to_spend_holds(db: Database) -> None:
    grown(db, ABOVE, production=100, cms=60, computing=-1)
    waiting = text(
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
        "WHERE datname = current_database() AND NOT granted"
    )
    given = threading.Event()

    def limited(conn: Connection) -> None:
        limits.put(conn, "computing", {"gigabytes": 5})
        given.set()
        until = time.monotonic() + 60
        while not conn.execute(waiting).scalar_one() and time.monotonic() < until:
            time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:
        putting = pool.submit(db.write_now, limited)
        assert given.wait(60)
        with pytest.raises(GigabytesLimit):
            db.write_now(lambda conn: spend(conn, "computing", 20))
        putting.result()


def test_whatever_is_done_at_once_no_project_is_beyond_its_limit(db: Database) -> None:
    grown(db, ABOVE, production=60, cms=40, atlas=10, computing=-1, visualisation=10)
    draw = random.Random(7)
    steps = [
        (draw.choice(list(ABOVE)), draw.choice(("spend", "spend", "put", "reset")), draw.randint(-1, 12))
        for _ in range(120)
    ]

    def done(step: tuple[str, str, int]) -> str:
        project, what, amount = step
        try:
            if what == "spend":
                db.write_now(lambda conn: spend(conn, project, max(1, amount)))
            elif project != "production" and what == "put":
                put(db, project, amount if amount < 0 else amount * 4)
            elif project != "production":
                db.write_now(lambda conn: limits.reset(conn, project))
        except BrickyardError as refused:
            return refused.code
        return "done"

    with ThreadPoolExecutor(6) as pool:
        outcomes = set(pool.map(done, steps))
    assert "done" in outcomes
    assert outcomes <= {"done", "quota.gigabytes", "quota.volumes", "quota.below-use", "quota.beyond-parent",
                        "quota.handed-down"}  # fmt: skip

    assert db.read_now(lambda conn: tree.Tree(conn).spent("production", "gigabytes")) <= 60


def test_a_site_that_has_more_below_than_above_is_not_turned(db: Database) -> None:
    """Counted flat until now."""
    db.engine.update_execution_options(**{RULES: Rules()})
    for project, limit in (("production", 5), ("cms", 10)):
        db.write_now(lambda conn, project=project, limit=limit: limits.put(conn, project, {"gigabytes": limit}))
    nested = QuotaSettings.model_validate({"nested": True})
    db.engine.update_execution_options(**{RULES: guard.rules_of(nested)})
    with pytest.raises(HierarchyUnknown):
        db.write_now(lambda conn: guard.change(conn, nested))
    for project, over in ABOVE.items():
        db.write_now(lambda conn, project=project, over=over: hierarchy.learn(conn, project, over))
    with pytest.raises(AlreadyBeyond, match="project production has 5 gigabytes, 10 are used or handed down"):
        db.write_now(lambda conn: guard.change(conn, nested))
    db.engine.update_execution_options(**{RULES: Rules()})
    db.write_now(lambda conn: limits.put(conn, "production", {"gigabytes": 10}))
    db.engine.update_execution_options(**{RULES: guard.rules_of(nested)})
    assert db.write_now(lambda conn: guard.change(conn, nested)) == ["quota.nested: false -> true"]
