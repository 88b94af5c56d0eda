"""Hosts that use one path alone: without a multipath daemon, with a kernel that does not gather paths of NVMe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.host import nvme
from agent.privsep import lio, nvmet
from tests.integration.agent.agent_process import Site
from tests.kernel.support import fabric, initiator
from tests.kernel.support.pair import Pair, Transport, pair_of

SECOND = "10.9.9.1"
_LOADED = ("nvmet_tcp", "nvmet", "nvme_tcp", "nvme_fabrics", "nvme_core")


@contextmanager
def by_iscsi() -> Iterator[Pair]:
    table = f'[targets.lio]\nportals = ["127.0.0.1", "{SECOND}"]'
    with initiator.ready(SECOND):
        site = Site()
        with pair_of(site, Transport("iscsi", initiator.iqn(), table, lio.lio_remove, "chap")) as made:
            yield made
        site.remove()


@contextmanager
def by_nvme() -> Iterator[Pair]:
    table = f'[targets.nvmet]\nportals = ["127.0.0.1", "{SECOND}"]'
    _unload()
    initiator.sh("modprobe nvme_core multipath=N")
    try:
        with fabric.ready(f"{SECOND}/24"):
            site, name = Site(), nvme.host_nqn()
            assert name is not None
            with pair_of(site, Transport("nvme-tcp", name, table, nvmet.nvmet_remove)) as made:
                yield made
            site.remove()
    finally:
        _unload()


def _unload() -> None:
    for name in _LOADED:
        if Path("/sys/module", name).exists():
            initiator.sh(f"modprobe -r {name}")
