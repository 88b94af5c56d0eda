"""Subsystems of the kernel's NVMe target, read from a tree as configfs has it."""

from __future__ import annotations

from pathlib import Path

from agent.host import nvmet
from tests.unit.agent.host.test_scsi import link, put

VOLUME = "11111111-2222-4333-8444-555555555555"
HOST = "nqn.2014-08.org.nvmexpress:uuid:aaaaaaaa-2222-4333-8444-555555555555"


def subsystem(root: Path, volume: str = VOLUME, host: str = HOST, *, enabled: str = "1") -> str:
    target = nvmet.nqn(volume, host)
    folder = root / "subsystems" / target
    put(folder / "namespaces/1/device_path", "/dev/loop3")
    put(folder / "namespaces/1/enable", enabled)
    (root / "hosts" / host).mkdir(parents=True, exist_ok=True)
    link(folder / "allowed_hosts" / host, root / "hosts" / host)
    for number, address in ((8790, "10.0.0.1"), (8791, "fd00::1")):
        put(root / f"ports/{number}/addr_traddr", address)
        put(root / f"ports/{number}/addr_trsvcid", "4420")
        link(root / f"ports/{number}/subsystems/{target}", folder)
    return target


def test_what_is_offered_to_whom_and_where(tmp_path: Path) -> None:
    target = subsystem(tmp_path)
    other = subsystem(tmp_path, host="nqn.2026-01.org.x:other", enabled="0")
    put(tmp_path / "subsystems/nqn.2026-01.org.somebody:else/attr_serial", "x")
    (tmp_path / "subsystems" / f"{nvmet.PREFIX}not-a-volume").mkdir()
    found = {one.target: one for one in nvmet.subsystems(root=tmp_path)}
    assert set(found) == {target, other}
    one = found[target]
    assert (one.volume_id, one.device, one.ready, one.initiators) == (VOLUME, "/dev/loop3", True, (HOST,))
    assert one.portals == ("10.0.0.1:4420", "[fd00::1]:4420")
    assert not found[other].ready
    assert nvmet.subsystems("99999999-2222-4333-8444-555555555555", tmp_path) == ()


def test_nothing_where_the_target_is_not_loaded(tmp_path: Path) -> None:
    assert not nvmet.available(tmp_path / "nvmet")
    assert nvmet.subsystems(root=tmp_path / "nvmet") == ()


def test_each_consumer_has_a_name_of_its_own_that_stays() -> None:
    assert nvmet.nqn(VOLUME, HOST) == nvmet.nqn(VOLUME, HOST)
    assert nvmet.nqn(VOLUME, HOST) != nvmet.nqn(VOLUME, HOST + "x")
    assert nvmet.volume_of(nvmet.nqn(VOLUME, HOST)) == VOLUME
    assert nvmet.volume_of("nqn.2026-01.org.example:x") is None


def test_those_by_rdma_are_others(tmp_path: Path) -> None:
    tcp = subsystem(tmp_path)
    rdma = nvmet.nqn(VOLUME, HOST, "rdma")
    put(tmp_path / "subsystems" / rdma / "attr_serial", "x")
    assert rdma != tcp
    assert nvmet.volume_of(rdma) == VOLUME
    assert {one.target for one in nvmet.subsystems(VOLUME, tmp_path)} == {tcp, rdma}
    for transport, target in (("tcp", tcp), ("rdma", rdma)):
        (only,) = nvmet.subsystems(root=tmp_path, transport=transport)
        assert (only.target, only.transport) == (target, transport)
