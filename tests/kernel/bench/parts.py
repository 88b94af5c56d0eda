"""A pytest plugin: of a file that takes long, only each so-manieth test; the others run in other guests."""

from __future__ import annotations

from collections import defaultdict

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", action="append", default=[], metavar="FILE=K/N", help="of FILE, the tests K, K+N, ...")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for told in config.getoption("--part"):
        file, _, part = told.rpartition("=")
        first, _, step = part.partition("/")
        wanted[file].append((int(first), int(step)))
    seen: defaultdict[str, int] = defaultdict(int)
    kept, others = [], []
    for item in items:
        file = item.nodeid.partition("::")[0]
        its = wanted.get(file, [(0, 1)])
        (kept if any(seen[file] % step == first for first, step in its) else others).append(item)
        seen[file] += 1
    items[:] = kept
    if others:
        config.hook.pytest_deselected(items=others)
