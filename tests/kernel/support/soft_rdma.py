"""RoCE in software over the guest's dummy interface: what an RDMA adapter is to a real host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from agent.host import nvme, rdma
from agent.privsep import lio, nvmet
from tests.integration.agent.agent_process import Site
from tests.kernel.support import fabric, initiator
from tests.kernel.support.initiator import sh
from tests.kernel.support.pair import Pair, Transport, pair_of
from tests.kernel.support.single import SECOND

THIRD = "10.9.8.1"  # of another network: else it would go away together with the first
DEVICE = "rxe0"
_MODULES = "rdma_rxe nvmet_rdma nvme_rdma ib_isert ib_iser"


def add() -> None:
    sh(f"rdma link add {DEVICE} type rxe netdev {fabric.LINK}")
    initiator.until(rdma.active, what="the RDMA device does not become active")


def drop() -> None:
    sh(f"rdma link del {DEVICE}")


@contextmanager
def device() -> Iterator[None]:
    """There is one, over the interface that has the addresses."""
    sh(f"modprobe -a {_MODULES}")
    add()
    try:
        yield
    finally:
        with suppress(AssertionError):
            drop()


@contextmanager
def by_nvme() -> Iterator[Pair]:
    """Two portals by RDMA, which the kernel gathers; the same volumes can be had by TCP, too."""
    tables = f'[targets.nvmet]\nportals = ["{SECOND}"]\n[targets.nvmet_rdma]\nportals = ["{SECOND}", "{THIRD}"]'
    with fabric.ready(f"{SECOND}/24", f"{THIRD}/24"), device():
        site, name = Site(), nvme.host_nqn()
        assert name is not None
        how = {"transport": "rdma"}
        with pair_of(site, Transport("nvme-rdma", name, tables, nvmet.nvmet_remove, how=how)) as made:
            yield made
        site.remove()


@contextmanager
def by_iser() -> Iterator[Pair]:
    """Two portals of which the first is used, as no multipath daemon runs; the same volumes can be had by TCP, too."""
    tables = f'[targets.lio]\nportals = ["{SECOND}"]\n[targets.iser]\nportals = ["{SECOND}", "{THIRD}"]'
    with initiator.ready(SECOND, THIRD), device():
        site = Site()
        with pair_of(
            site, Transport("iser", initiator.iqn(), tables, lio.lio_remove, "chap", {"fabric": "iser"})
        ) as made:
            yield made
        site.remove()
