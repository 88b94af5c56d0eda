"""What LVM told on real groups, understood; what it never should tell, refused; 2,000 volumes within a second."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.backends.config import LvmBackendConfig
from agent.backends.errors import NoSpace, OverSubscribed, PoolMissing, PoolNearlyFull, ReportUnreadable
from agent.backends.lvm_report import parse
from agent.backends.lvm_space import Space
from agent.base.ids import new_id

REPORTS = Path(__file__).parent / "reports"
MIB, GIB = 1 << 20, 1 << 30


def space(name: str, **keys: object) -> Space:
    text = (REPORTS / f"{name}.json").read_text()
    config = LvmBackendConfig.model_validate({"driver": "lvm", "group": "bricks-t", **keys})
    return Space("fast", config, parse(text, "bricks-t"))


def test_a_thin_pool_as_lvm_2_03_16_tells_it() -> None:
    seen = space("thin", pool="pool")
    (volume, snapshot, half) = sorted(seen.held(), key=lambda held: held.device_bytes)[::-1]
    assert [one.kind for one in (volume, snapshot, half)] == ["volume", "snapshot", "leftover"]
    state = seen.state()
    assert (state.total_bytes, state.thin, state.reflink) == (256 * MIB, True, True)
    assert state.data_percent is not None
    assert state.metadata_percent is not None
    assert state.free_bytes == int(256 * MIB * (1 - state.data_percent / 100))
    assert state.allocated_bytes == sum(one.lv_size for part, _, one in seen.ours() if part != "partial")


def test_the_thick_volumes_of_the_same_group_are_another_back_end() -> None:
    seen = space("thin")
    (thick,) = seen.held()
    assert (thick.kind, thick.device_bytes, thick.allocated_bytes) == ("volume", 5 * MIB, 8 * MIB)
    assert seen.state().total_bytes == seen.group.size
    assert not seen.state().thin


def test_what_others_made_in_the_same_space_is_told_apart() -> None:
    thin = space("thin", pool="pool")
    assert thin.foreign == 0
    report = json.loads((REPORTS / "thin.json").read_text())
    rows = next(part["lv"] for part in report["report"] if part.get("lv"))
    inside = next(row for row in rows if row["pool_lv"] == "pool" and not row["origin"])
    rows.append({**inside, "lv_name": "by-hand", "lv_size": str(300 * MIB), "lv_tags": ""})
    seen = Space("fast", thin.config, parse(json.dumps(report), "bricks-t"))
    assert (seen.foreign, seen.promised) == (300 * MIB, thin.promised)
    assert seen.state().foreign_bytes == 300 * MIB
    half_made = 8 * MIB
    room = int(256 * MIB * 20) - thin.promised - half_made - 300 * MIB
    seen.admit(room)
    with pytest.raises(OverSubscribed):
        seen.admit(room + 4 * MIB)
    thick = space("thin")
    assert thick.foreign == thick.group.size - thick.group.free - 8 * MIB
    assert space("empty").foreign == 0


def test_an_empty_group_as_lvm_tells_it() -> None:
    seen = space("empty")
    assert seen.held() == []
    assert seen.state().free_bytes == seen.group.size
    with pytest.raises(NoSpace):
        seen.admit(seen.group.size + 1)
    seen.admit(seen.group.size)
    since = seen.state(since=MIB)
    assert (since.free_bytes, since.allocated_bytes) == (seen.group.size - MIB, MIB)
    with pytest.raises(NoSpace):
        seen.admit(seen.group.size, since=1)


def test_a_pool_that_is_not_there_or_no_pool_or_does_not_zero() -> None:
    with pytest.raises(PoolMissing):
        space("thin", pool="other").check()
    thick = next(one.lv_name for one in space("thin").group.volumes if one.lv_name.startswith("plain"))
    with pytest.raises(PoolMissing):
        space("thin", pool=thick).check()
    text = (REPORTS / "thin.json").read_text().replace('"lv_attr":"twi-aotz--"', '"lv_attr":"twi-aot---"')
    config = LvmBackendConfig(driver="lvm", group="bricks-t", pool="pool")
    with pytest.raises(PoolMissing, match="clear its blocks"):
        Space("fast", config, parse(text, "bricks-t")).check()


def test_promises_have_a_limit_and_marks_refuse() -> None:
    seen = space("thin", pool="pool", max_over_subscription=2)
    with pytest.raises(OverSubscribed):
        seen.admit(GIB)
    seen.admit(4 * MIB)
    percent = seen.state().data_percent
    assert percent is not None
    marked = space("thin", pool="pool", create_limit_percent=int(percent), autoextend_percent=1)
    with pytest.raises(PoolNearlyFull, match="data"):
        marked.admit(4 * MIB)
    assert len(marked.full()) == 1
    assert space("thin", pool="pool", metadata_limit_percent=1).full()


def test_what_is_half_made_is_promised_too() -> None:
    seen = space("thin", pool="pool", max_over_subscription=2)
    assert seen.pool is not None
    half = sum(volume.lv_size for part, _, volume in seen.ours() if part == "partial")
    room = 2 * seen.pool.lv_size - seen.promised
    seen.admit(room - half)
    with pytest.raises(OverSubscribed):
        seen.admit(room - half + MIB)
    assert half > 0


def test_a_pool_asks_for_space_at_its_mark_and_never_for_more_than_there_is() -> None:
    assert space("thin", pool="pool", autoextend_percent=89).growth() == {}
    assert space("thin", pool="pool", autoextend_percent=100).growth() == {}
    seen = space("thin", pool="pool", autoextend_percent=1, autoextend_by_percent=50)
    assert seen.growth() == {"metadata": 4 * MIB, "data": 128 * MIB}
    tight = seen.group.__class__(**{**{f: getattr(seen.group, f) for f in seen.group.__slots__}, "free": 6 * MIB})
    assert Space("fast", seen.config, tight).growth() == {"data": 4 * MIB}


@given(st.text(max_size=200))
def test_whatever_else_comes_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(ReportUnreadable):
        parse(text, "bricks-t")


@pytest.mark.parametrize(
    "report",
    [
        "[]",
        "{}",
        '{"report": []}',
        '{"report": [{"vg": [{"vg_name": "x"}]}]}',
        '{"report": [{"lv": [{"lv_size": "1g"}]}]}',
    ],
)
def test_reports_of_another_shape_are_refused(report: str) -> None:
    with pytest.raises(ReportUnreadable):
        parse(report, "bricks-t")


def test_two_thousand_volumes_cost_less_than_a_second() -> None:
    report = json.loads((REPORTS / "thin.json").read_text())
    (part,) = [part for part in report["report"] if part.get("vg")]
    pattern = next(row for row in part["lv"] if row["pool_lv"] == "pool")
    part["lv"] += [{**pattern, "lv_name": f"byv-{new_id()}", "lv_uuid": new_id()} for _ in range(2000)]
    text = json.dumps(report)
    began = time.process_time()
    config = LvmBackendConfig(driver="lvm", group="bricks-t", pool="pool", max_over_subscription=1000)
    seen = Space("fast", config, parse(text, "bricks-t"))
    seen.state()
    assert len(seen.held()) > 2000
    seen.admit(0)
    assert time.process_time() - began < 1.0
