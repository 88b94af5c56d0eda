"""RDMA devices read from a tree as sysfs has it: in software, an adapter, and what stands above its interface."""

from __future__ import annotations

from pathlib import Path

from agent.host import facts, rdma
from tests.unit.agent.host.test_scsi import put

LISTENS = (
    "Num RefCount Protocol Flags Type St Inode Path\n"
    "0: 00000002 00000000 00010000 0001 01 1 @ISCSIADM_ABSTRACT_NAMESPACE\n"
)


def soft(sys: Path, state: str = "4: ACTIVE") -> None:
    """`rxe0` over eth1, on which a VLAN stands."""
    put(sys / "class/infiniband/rxe0/parent", "eth1")
    put(sys / "class/infiniband/rxe0/ports/1/state", state)
    put(sys / "class/net/eth1/operstate", "up")
    put(sys / "class/net/eth1/upper_eth1.5", "")
    put(sys / "class/net/eth1.5/operstate", "up")


def test_whose_addresses_are_reached(tmp_path: Path) -> None:
    assert not rdma.active(tmp_path)
    assert rdma.links(tmp_path) == frozenset()
    soft(tmp_path)
    for number, state in (("1", "4: ACTIVE"), ("2", "1: DOWN")):
        put(tmp_path / f"class/infiniband/mlx5_0/ports/{number}/state", state)
    put(tmp_path / "class/infiniband/mlx5_0/device/net/ib0/operstate", "up")
    assert [(port.device, port.number, port.active) for port in rdma.ports(tmp_path)] == [
        ("mlx5_0", "1", True), ("mlx5_0", "2", False), ("rxe0", "1", True),
    ]  # fmt: skip
    assert rdma.links(tmp_path) == {"ib0", "eth1", "eth1.5"}


def test_a_port_that_is_down_carries_nothing(tmp_path: Path) -> None:
    soft(tmp_path, "1: DOWN")
    assert not rdma.active(tmp_path)
    assert rdma.links(tmp_path) == frozenset()


def test_a_host_can_use_volumes_by_it_with_the_device_and_the_initiator(tmp_path: Path) -> None:
    put(tmp_path / "dev/nvme-fabrics", "")
    put(tmp_path / "proc/net/unix", LISTENS)
    by_rdma = {"iser", "nvme-rdma"}
    for module in ("nvme_rdma", "ib_iser"):
        (tmp_path / "sys/module" / module).mkdir(parents=True)
    assert not by_rdma & set(facts.capabilities(tmp_path))
    soft(tmp_path / "sys")
    assert by_rdma <= set(facts.capabilities(tmp_path))
    assert "nvme-tcp" not in facts.capabilities(tmp_path)
    (tmp_path / "sys/module/ib_iser").rmdir()
    assert "iser" not in facts.capabilities(tmp_path)
