from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.base.metrics import Registry


def test_rendered_form() -> None:
    registry = Registry()
    jobs = registry.counter("brickyard_jobs", "Jobs ended.", kind=("volume.create",), state=("done", "failed"))
    jobs.inc(kind="volume.create", state="done")
    jobs.inc(2, kind="volume.create", state="done")
    registry.gauge("brickyard_free_bytes", "Free.", pool=2).set(5, pool="a#p")
    step = registry.histogram("brickyard_step_seconds", "Steps.", buckets=(1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        step.observe(value)
    text = registry.render().decode()
    assert 'brickyard_jobs_total{kind="volume.create",state="done"} 3.0' in text
    assert 'brickyard_free_bytes{pool="a#p"} 5.0' in text
    assert 'brickyard_step_seconds_bucket{le="1.0"} 2.0' in text
    assert 'brickyard_step_seconds_bucket{le="2.0"} 3.0' in text
    assert 'brickyard_step_seconds_bucket{le="+Inf"} 4.0' in text
    assert "brickyard_step_seconds_sum 12.0" in text


def test_labels_stay_bounded() -> None:
    registry = Registry()
    calls = registry.counter("calls", "Calls.", method=("GET",), host=3)
    for number in range(50):
        calls.inc(method=f"M{number}", host=f"h{number}")
    assert len(calls.snapshot()) == 4
    assert calls.snapshot()["other", "other"] == 47


def test_wrong_labels_and_double_names_are_defects() -> None:
    registry = Registry()
    calls = registry.counter("calls", "Calls.", method=("GET",))
    assert registry.counter("calls", "Calls.", method=("GET",)) is calls
    with pytest.raises(TypeError):
        calls.inc()
    with pytest.raises(TypeError):
        registry.gauge("calls", "Calls.")


def test_gauges_are_refreshed_at_the_scrape_and_old_label_sets_vanish() -> None:
    registry = Registry()
    oldest = registry.gauge("oldest_seconds", "Age.", state=5)
    rounds = iter(([({"state": "creating"}, 3.0), ({"state": "deleting"}, 1.0)], [({"state": "deleting"}, 2.0)]))
    registry.before_render(lambda: oldest.replace(next(rounds)))
    assert b'oldest_seconds{state="creating"} 3.0' in registry.render()
    second = registry.render()
    assert b"creating" not in second
    assert b'oldest_seconds{state="deleting"} 2.0' in second


def test_threads_lose_no_count() -> None:
    hits = Registry().counter("hits", "Hits.")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: [hits.inc() for _ in range(1000)], range(8)))
    assert hits.snapshot() == {(): 8000.0}


def test_time_counts_failures_too() -> None:
    took = Registry().histogram("took_seconds", "Took.", step=("a",))
    with pytest.raises(ValueError), took.time(step="a"):
        raise ValueError
    ((counts, total),) = took.snapshot().values()
    assert sum(counts) == 1
    assert 0 <= total < 1


def test_recording_loads_no_prometheus_client() -> None:
    program = "import sys; from agent.base.metrics import registry; registry.counter('a', 'b').inc()\n"
    program += "assert 'prometheus_client' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
