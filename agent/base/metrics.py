"""Counters, gauges and histograms with bounded labels, rendered for Prometheus.

Recording is a dictionary update under a lock; prometheus_client is loaded by the first scrape. A label takes its
values from a fixed list, or from the first N distinct ones; whatever else comes is counted as `other`, so that no
name that a user chooses can grow the exposition without end.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

Allowed = Sequence[str] | int
Kind = Literal["counter", "gauge", "histogram"]
OTHER = "other"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class _Metric:
    kind: Kind

    def __init__(self, name: str, text: str, labels: Mapping[str, Allowed]) -> None:
        self.name, self.text, self.labels = name, text, tuple(labels)
        self._allowed = {
            label: set() if isinstance(allowed, int) else set(allowed) for label, allowed in labels.items()
        }
        self._room = {label: allowed for label, allowed in labels.items() if isinstance(allowed, int)}
        self._lock = threading.Lock()

    def _place(self, given: Mapping[str, str]) -> tuple[str, ...]:
        if given.keys() != self._allowed.keys():
            raise TypeError(f"{self.name} has the labels {self.labels}, not {tuple(given)}")
        return tuple(self._bounded(label, given[label]) for label in self.labels)

    def _bounded(self, label: str, value: str) -> str:
        known = self._allowed[label]
        if value in known:
            return value
        if len(known) < self._room.get(label, 0):
            known.add(value)
            return value
        return OTHER


class Counter(_Metric):
    """Only rises. Its exposed name ends in `_total`."""

    kind = "counter"

    def __init__(self, name: str, text: str, labels: Mapping[str, Allowed]) -> None:
        super().__init__(name, text, labels)
        self._values: dict[tuple[str, ...], float] = {} if labels else {(): 0.0}

    def inc(self, amount: float = 1.0, /, **labels: str) -> None:
        with self._lock:
            place = self._place(labels)
            self._values[place] = self._values.get(place, 0.0) + amount

    def snapshot(self) -> dict[tuple[str, ...], float]:
        with self._lock:
            return dict(self._values)


class Gauge(_Metric):
    """A value that goes up and down; `replace` sets all label sets at once, so that old ones vanish."""

    kind = "gauge"

    def __init__(self, name: str, text: str, labels: Mapping[str, Allowed]) -> None:
        super().__init__(name, text, labels)
        self._values: dict[tuple[str, ...], float] = {}

    def set(self, value: float, /, **labels: str) -> None:
        with self._lock:
            self._values[self._place(labels)] = value

    def add(self, amount: float, /, **labels: str) -> None:
        with self._lock:
            place = self._place(labels)
            self._values[place] = self._values.get(place, 0.0) + amount

    def replace(self, values: Sequence[tuple[Mapping[str, str], float]]) -> None:
        with self._lock:
            fresh: dict[tuple[str, ...], float] = {}
            for labels, value in values:
                place = self._place(labels)
                fresh[place] = max(value, fresh.get(place, value))
            self._values = fresh

    def snapshot(self) -> dict[tuple[str, ...], float]:
        with self._lock:
            return dict(self._values)


class Histogram(_Metric):
    """How long things take, in seconds unless the name says another unit."""

    kind = "histogram"

    def __init__(self, name: str, text: str, labels: Mapping[str, Allowed], buckets: Sequence[float] = SECONDS) -> None:
        super().__init__(name, text, labels)
        self.buckets = tuple(buckets)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, value: float, /, **labels: str) -> None:
        with self._lock:
            place = self._place(labels)
            counts = self._counts.setdefault(place, [0] * (len(self.buckets) + 1))
            counts[bisect_left(self.buckets, value)] += 1
            self._sums[place] = self._sums.get(place, 0.0) + value

    @contextmanager
    def time(self, **labels: str) -> Iterator[None]:
        """Observe how long the block took, also when it fails."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - started, **labels)

    def snapshot(self) -> dict[tuple[str, ...], tuple[list[int], float]]:
        with self._lock:
            return {place: (list(counts), self._sums[place]) for place, counts in self._counts.items()}


Made = TypeVar("Made", Counter, Gauge, Histogram)


class Registry:
    """The metrics of one process. Asking twice for a name gives the same metric."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        self._metrics: dict[str, Counter | Gauge | Histogram] = {}
        self._refresh: list[Callable[[], None]] = []

    def counter(self, name: str, text: str, **labels: Allowed) -> Counter:
        return self._made(Counter(name, text, labels))

    def gauge(self, name: str, text: str, **labels: Allowed) -> Gauge:
        return self._made(Gauge(name, text, labels))

    def histogram(self, name: str, text: str, buckets: Sequence[float] = SECONDS, **labels: Allowed) -> Histogram:
        return self._made(Histogram(name, text, labels, buckets))

    def before_render(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` at each scrape, to set gauges that are read rather than kept."""
        self._refresh.append(refresh)

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        from prometheus_client import CollectorRegistry, generate_latest

        for refresh in self._refresh:
            refresh()
        target = CollectorRegistry(auto_describe=False)
        target.register(self)
        return generate_latest(target)

    def collect(self) -> Iterator[Family]:
        """What prometheus_client asks of a collector."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for metric in self._metrics.values():
            if isinstance(metric, Histogram):
                yield _histogram_family(metric)
                continue
            make = CounterMetricFamily if isinstance(metric, Counter) else GaugeMetricFamily
            family = make(metric.name, metric.text, labels=metric.labels)
            for place, value in metric.snapshot().items():
                family.add_metric(place, value)
            yield family

    def _made(self, metric: Made) -> Made:
        known = self._metrics.setdefault(metric.name, metric)
        if type(known) is not type(metric) or known.labels != metric.labels:
            raise TypeError(f"the metric {metric.name} is made twice in different forms")
        return known


def _histogram_family(metric: Histogram) -> Family:
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily(metric.name, metric.text, labels=metric.labels)
    for place, (counts, total) in metric.snapshot().items():
        bounds = [*map(str, metric.buckets), "+Inf"]
        rising = [sum(counts[: index + 1]) for index in range(len(counts))]
        family.add_metric(place, buckets=list(zip(bounds, rising, strict=True)), sum_value=total)
    return family


registry = Registry()
