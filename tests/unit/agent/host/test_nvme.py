"""Subsystems, controllers and namespaces read from a tree as the kernel makes it; names of this host."""

from __future__ import annotations

from pathlib import Path

from agent.host import nvme
from tests.unit.agent.host.test_scsi import link, put

TARGET = "nqn.2026-01.io.brickyard:11111111-2222-4333-8444-555555555555:0123456789abcdef"
IDENTITY = "uuid.11111111-2222-4333-8444-555555555555"
MIB = 1 << 20


def controller(sys: Path, subsystem: int, number: int, *, address: str = "10.0.0.1", state: str = "live",
               transport: str = "tcp", target: str = TARGET) -> None:  # fmt: skip
    folder = sys / f"class/nvme/nvme{number}"
    put(folder / "transport", transport)
    put(folder / "address", f"traddr={address},trsvcid=4420,src_addr=10.0.0.9")
    put(folder / "state", state)
    put(sys / f"class/nvme-subsystem/nvme-subsys{subsystem}/subsysnqn", target)
    link(sys / f"class/nvme-subsystem/nvme-subsys{subsystem}/nvme{number}", folder)


def namespace(sys: Path, subsystem: int, *, nsid: int = 1, identity: str = IDENTITY, place: str = "") -> str:
    """`place`: below a controller, as without native multipath."""
    name = f"nvme{subsystem}n{nsid}"
    folder = sys / f"block/{name}"
    put(folder / "nsid", str(nsid))
    put(folder / "wwid", identity)
    put(folder / "size", str(MIB // 512))
    put(folder / "diskseq", "9")
    put(folder / "ro", "0")
    parent = sys / (place or f"class/nvme-subsystem/nvme-subsys{subsystem}")
    link(parent / name, folder)
    link(folder / "device", parent)
    return name


def test_two_paths_one_disk(tmp_path: Path) -> None:
    controller(tmp_path, 0, 0)
    controller(tmp_path, 0, 1, address="fd00::1", state="connecting")
    namespace(tmp_path, 0)
    found = nvme.subsystem(TARGET, tmp_path)
    assert found is not None
    assert [(one.name, one.address, one.port, one.live) for one in found.controllers] == [
        ("nvme0", "10.0.0.1", 4420, True),
        ("nvme1", "fd00::1", 4420, False),
    ]
    (space,) = found.namespaces
    assert (space.name, space.nsid, space.identity, space.size, space.diskseq) == ("nvme0n1", 1, IDENTITY, MIB, 9)
    assert found.live
    assert nvme.over_fabric("nvme0n1", tmp_path)
    fabric, subsystem = "/devices/virtual/nvme-fabrics/ctl", "/devices/virtual/nvme-subsystem"
    assert found.holds(f"{subsystem}/nvme-subsys0/nvme0n1")
    assert found.holds(f"{fabric}/nvme1/nvme1n1")
    assert not found.holds(f"{subsystem}/nvme-subsys1/nvme1n1")
    assert not found.holds(f"{fabric}/nvme10/nvme10n1")


def test_one_that_comes_back_under_another_number_is_found(tmp_path: Path) -> None:
    controller(tmp_path, 0, 0)
    assert nvme.subsystem(TARGET, tmp_path) is not None
    (tmp_path / "class/nvme-subsystem/nvme-subsys0/nvme0").unlink()
    assert nvme.subsystem(TARGET, tmp_path) is None
    controller(tmp_path, 4, 1)
    found = nvme.subsystem(TARGET, tmp_path)
    assert found is not None
    assert [one.name for one in found.controllers] == ["nvme1"]


def test_local_disks_are_not_told_and_never_taken_for_remote(tmp_path: Path) -> None:
    controller(tmp_path, 0, 0, transport="pcie")
    namespace(tmp_path, 0)
    assert nvme.subsystems(tmp_path) == ()
    assert not nvme.over_fabric("nvme0n1", tmp_path)


def test_without_native_multipath_the_disk_is_the_controllers(tmp_path: Path) -> None:
    controller(tmp_path, 0, 0)
    namespace(tmp_path, 0, place="class/nvme/nvme0")
    found = nvme.subsystem(TARGET, tmp_path)
    assert found is not None
    assert [one.name for one in found.namespaces] == ["nvme0n1"]


def test_a_controller_that_is_just_going_hides_nothing(tmp_path: Path) -> None:
    controller(tmp_path, 0, 0)
    (tmp_path / "class/nvme-subsystem/nvme-subsys0/nvme1").symlink_to(tmp_path / "class/nvme/nvme1")
    found = nvme.subsystem(TARGET, tmp_path)
    assert found is not None
    assert [one.name for one in found.controllers] == ["nvme0"]
    assert nvme.subsystem("nqn.2026-01.io.other:x", tmp_path) is None


def test_a_namespace_whose_controller_is_gone_is_going_and_a_local_one_never_is(tmp_path: Path) -> None:
    controller(tmp_path, 0, 0)
    namespace(tmp_path, 0)
    controller(tmp_path, 1, 1, transport="pcie")
    namespace(tmp_path, 1)
    controller(tmp_path, 2, 2, transport="pcie")
    namespace(tmp_path, 2, place="class/nvme/nvme2")
    assert not any(nvme.is_going(f"nvme{number}n1", tmp_path) for number in range(3))
    (tmp_path / "class/nvme/nvme0/transport").unlink()
    assert nvme.is_going("nvme0n1", tmp_path)
    (tmp_path / "class/nvme-subsystem/nvme-subsys0/nvme0").unlink()
    assert nvme.is_going("nvme0n1", tmp_path)
    assert not nvme.is_going("sda", tmp_path)


def test_the_hosts_name_is_its_own_and_stays(tmp_path: Path) -> None:
    assert nvme.host_nqn(tmp_path) is None
    put(tmp_path / "etc/machine-id", "0123456789abcdef0123456789abcdef")
    made = nvme.host_nqn(tmp_path)
    assert made is not None
    assert made == nvme.host_nqn(tmp_path)
    assert made == f"nqn.2014-08.org.nvmexpress:uuid:{nvme.host_id(made, tmp_path)}"
    assert "0123456789abcdef0123456789abcdef" not in made.replace("-", "")
    put(tmp_path / "etc/nvme/hostnqn", "nqn.2026-01.org.example:mine")
    put(tmp_path / "etc/nvme/hostid", "AAAAAAAA-2222-4333-8444-555555555555")
    assert nvme.host_nqn(tmp_path) == "nqn.2026-01.org.example:mine"
    assert nvme.host_id("nqn.2026-01.org.example:mine", tmp_path) == "aaaaaaaa-2222-4333-8444-555555555555"
