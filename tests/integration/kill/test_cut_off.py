"""A host that shares its back end is cut off while it copies: it stops by itself, and only then another one begins."""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import postgres
from tests.support.proxy import Proxy
from tests.support.site import Site, started

pytestmark = [
    pytest.mark.kill, pytest.mark.root, pytest.mark.postgresql, pytest.mark.slow, pytest.mark.timeout(900)
]  # fmt: skip
LEASE_S, CONTENT, RATE = 4, 24 << 20, 2 << 20


class Shared(Site):
    """Two coordinators on PostgreSQL; two members of a cluster copy slowly, the first is reached through `proxy`."""

    def __init__(self) -> None:
        sets = (f"fleet.member_lease_s={LEASE_S}", "fleet.poll_interval_s=1")
        slow = (f"jobs.rate_limit={RATE}",)
        super().__init__(agents=2, agent_sets=slow, sets=sets, database=postgres.cluster().database(), coordinators=2)
        self.place = self.folder / "shared"
        for part in self.agents.values():
            part.sets = (*part.sets, f"backends.files.path={self.place}", "backends.files.cluster_name=c1")
        first = self.hosts[0]
        self.proxy = Proxy(int(tomllib.loads(self.layout.agent_file(first).read_text())["agent"]["port"]))
        self.agents[first].more["reach"] = self.proxy.port

    def server(self, volume: str) -> str:
        return str(self.api.volume(volume)["os-vol-host-attr:host"]).partition("@")[0]

    def content(self, volume: str) -> Path:
        return self.place / "volumes" / volume


@pytest.fixture
def site() -> Iterator[Shared]:
    made = Shared()
    with made.proxy.relaying(), started(made):
        yield made


def test_who_is_cut_off_writes_no_more_when_another_begins(site: Shared) -> None:
    api, (cut, other) = site.api, site.hosts
    # Both began at once on an empty database: one cluster has come of it.
    assert [row["name"] for row in site.truths.rows("SELECT name FROM clusters")] == ["c1@files"]
    source = next(made for number in range(64) if site.server(made := api.made(f"source{number}")) == cut)
    with site.content(source).open("r+b") as out:
        out.write(os.urandom(CONTENT))
    copy = api.create_volume("copy", source_volid=source)
    site.truths.eventually(lambda: _copies(site, copy), 120)
    assert site.server(copy) == cut
    site.proxy.cut("both")
    # It has to give its work up without being told.
    site.truths.eventually(lambda: _fenced(site, cut, copy), 120)
    stopped = _written(site)
    assert site.server(copy) == cut, "another began before it had stopped"
    assert _written(site) == stopped
    while site.server(copy) == cut:
        assert _written(site) == stopped, "it wrote after it had given up"
        time.sleep(0.1)
    api.settle(300)
    assert (api.volume(copy)["status"], site.server(copy)) == ("available", other)
    site.proxy.mend()
    site.truths.eventually(lambda: _whole(site), 120)
    # Back, it does not go on with what it had, and what the other has made is left alone.
    site.truths.eventually(lambda: _nothing_kept(site, cut), 120)
    with site.content(source).open("rb") as read, site.content(copy).open("rb") as filled:
        assert read.read(CONTENT) == filled.read(CONTENT)
    for row in api.volumes():
        site.coordinators[1].api.delete(f"/v3/volumes/{row['id']}")
        api.settle(120)
    assert [list((site.place / name).iterdir()) for name in ("volumes", "partial")] == [[], []]


def _copies(site: Shared, volume: str) -> None:
    (operation, *_) = site.api.operations(volume)
    assert operation["state"] == "running", operation
    assert (operation["progress"] or {}).get("done"), operation


def _fenced(site: Shared, host: str, volume: str) -> None:
    (operation, *_) = site.api.operations(volume)
    rows = site.truths.journal(host, f"SELECT state FROM jobs WHERE operation = '{operation['id']}'")
    assert [row["state"] for row in rows] == ["fenced"]


def _written(site: Shared) -> list[tuple[str, int, int]]:
    """What stands half made in the folder: name, blocks, and when it was written to last."""
    found = [(path.name, path.stat()) for path in sorted((site.place / "partial").iterdir())]
    return [(name, stat.st_blocks, stat.st_mtime_ns) for name, stat in found]


def _whole(site: Shared) -> None:
    (found,) = site.api.get("/v3/clusters/detail")["clusters"]
    assert (found["num_hosts"], found["num_down_hosts"]) == (2, 0)


def _nothing_kept(site: Shared, host: str) -> None:
    assert site.truths.journal(host, "SELECT key, state FROM jobs") == []
