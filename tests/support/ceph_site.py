"""A site of real processes whose volumes lie in a real Ceph, and its consumers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support import ceph
from tests.support.ceph_pool import Pool, backend_table
from tests.support.site import Site, started
from tests.support.truths import Truths

_TABLES = {"byv-": 0, "bys-": 1, "byp-": 2}


class CephTruths(Truths):
    """Rows of the site beside what the pool holds."""

    def __init__(self, site: Site, cluster: ceph.Cluster) -> None:
        super().__init__(site)
        self._cluster = cluster

    def stored(self, host: str) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        found: tuple[dict[str, int], dict[str, int], dict[str, int]] = ({}, {}, {})
        for row in json.loads(self._cluster.rbd("ls", "--long", "--format", "json", ceph.POOL)):
            if "snapshot" not in row:
                found[_TABLES[row["image"][:4]]][row["image"][4:]] = row["size"]
        return found


@dataclass
class Consumer:
    """Opens volumes of the site, each with the key that the API names."""

    site: Site
    pool: Pool

    def key(self, volume_id: str) -> bytes | None:
        key_id = self.site.api.volume(volume_id).get("encryption_key_id")
        return None if key_id is None else self.site.truths.opening(key_id)

    def read(self, volume_id: str, size: int) -> bytes:
        return self.pool.read(volume_id, size, self.key(volume_id))

    def write(self, volume_id: str, content: bytes) -> None:
        self.pool.write(volume_id, content, self.key(volume_id))

    def usable(self, volume_id: str) -> int:
        return self.pool.usable(volume_id, self.key(volume_id))

    def emptied(self) -> None:
        """Wait until the pool and its trash are empty; a client that was killed holds an image up for a while."""
        assert self.pool.names() == set()
        deadline = time.monotonic() + 240
        while thrown := self.pool.thrown():
            assert time.monotonic() < deadline, thrown
            # Each deletion has the agent go through it.
            self.site.api.delete(f"/v3/volumes/{self.site.api.made('last')}")
            self.site.api.settle(120)
            moment = time.monotonic() + 10
            while self.pool.thrown() and time.monotonic() < moment:
                time.sleep(0.5)  # the last one itself is taken from there in a moment


@contextmanager
def consuming(cluster: ceph.Cluster, *sets: str, **more: object) -> Iterator[Consumer]:
    """A site of one host, with images, and with the pool as its only back end, which it has seen.

    `sets` are overrides of the coordinator's configuration, `more` goes to the back end.
    """
    site = Site(1, ("fleet.poll_interval_s=2.0", *sets))
    file = site.layout.agent_file(site.volume_host)
    table = backend_table(cluster, site.folder, **more)
    mapping = f'[connectors]\nceph_keyring = "{site.folder}/keyring"\n'
    file.write_text(file.read_text().partition("[backends.files]")[0] + table + mapping)
    site.truths = CephTruths(site, cluster)
    with started(site):
        deadline = time.monotonic() + 300
        while not site.truths.rows("SELECT id FROM pools"):
            assert time.monotonic() < deadline, site.logs()
            time.sleep(0.2)
        yield Consumer(site, Pool(cluster, site.folder))
