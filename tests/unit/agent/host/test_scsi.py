"""Sessions, disks and maps read from a tree as the kernel makes it."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from agent.host import lio, scsi

TARGET = "iqn.2026-01.io.brickyard:11111111-2222-4333-8444-555555555555"
IDENTITY = "naa.60014051111111122224333844455555"
SERIAL = "11111111-2222-4333-8444-555555555555"


def put(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode() + b"\n")


def link(path: Path, to: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)


def session(sys: Path, number: int, *, host: int = 3, address: str = "10.0.0.1", lun: int = 0, name: str = "sda",
            identity: str = IDENTITY, state: str = "LOGGED_IN", target: str = TARGET) -> None:  # fmt: skip
    """One session with one disk, its links as sysfs has them."""
    device = sys / f"devices/platform/host{host}/session{number}"
    place = device / f"iscsi_session/session{number}"
    put(place / "targetname", target)
    put(place / "state", state)
    put(place / "target_id", "0")
    link(place / "device", device)
    link(sys / f"class/iscsi_session/session{number}", place)
    connection = device / f"connection{number}:0/iscsi_connection/connection{number}:0"
    put(connection / "persistent_address", address)
    put(connection / "persistent_port", "3260")
    link(sys / f"class/iscsi_connection/connection{number}:0", connection)
    disk = device / f"target{host}:0:0/{host}:0:0:{lun}"
    put(disk / "wwid", identity)
    put(disk / "state", "running")
    put(disk / "vpd_pg80", b"\0\x80" + len(SERIAL).to_bytes(2, "big") + SERIAL.encode())
    put(disk / f"block/{name}/size", "2048")
    put(disk / f"block/{name}/diskseq", "7")
    link(disk / f"block/{name}/device", disk)
    link(sys / f"class/scsi_device/{host}:0:0:{lun}/device", disk)
    link(sys / f"block/{name}", disk / f"block/{name}")


def multipath(sys: Path, name: str, below: tuple[str, ...], uuid: str) -> None:
    put(sys / f"block/{name}/dm/uuid", uuid)
    put(sys / f"block/{name}/dm/name", uuid.removeprefix("mpath-"))
    put(sys / f"block/{name}/size", "2048")
    for each in below:
        (sys / f"block/{name}/slaves/{each}").mkdir(parents=True)


def test_sessions_with_their_disks(tmp_path: Path) -> None:
    session(tmp_path, 2, host=4, address="fd00::1", name="sdb")
    session(tmp_path, 1)
    session(tmp_path, 3, host=5, name="sdc", target="iqn.2026-01.org.other:x")
    first, second = scsi.sessions(TARGET, tmp_path)
    assert (first.number, first.host, first.address, first.port, first.healthy) == (1, 3, "10.0.0.1", 3260, True)
    assert second.address == "fd00::1"
    disk = first.disk(0)
    assert disk is not None
    assert (disk.address, disk.name, disk.identity, disk.serial) == ("3:0:0:0", "sda", IDENTITY, SERIAL)
    assert (disk.size, disk.diskseq, disk.lun, disk.state) == (1 << 20, 7, 0, "running")
    assert first.disk(1) is None
    assert len(scsi.sessions(sys=tmp_path)) == 3
    assert scsi.over_iscsi("sda", tmp_path)
    assert scsi.path_running("sda", tmp_path)


def test_the_session_that_a_disk_came_by(tmp_path: Path) -> None:
    session(tmp_path, 2, host=4, address="fd00::1", name="sdb")
    found = scsi.session_of("sdb", tmp_path)
    assert found == scsi.session(2, tmp_path) == scsi.sessions(TARGET, tmp_path)[0]
    (tmp_path / "block/sda").mkdir(parents=True)
    assert scsi.session_of("sda", tmp_path) is None
    assert scsi.session(3, tmp_path) is None


def test_what_is_half_there_is_no_error(tmp_path: Path) -> None:
    assert scsi.sessions(sys=tmp_path) == ()
    put(tmp_path / "class/iscsi_session/session9/state", "FREE")
    put(tmp_path / "class/iscsi_session/other/state", "FREE")
    assert scsi.sessions(sys=tmp_path) == ()
    gone = scsi.disk("1:0:0:0", tmp_path)
    assert (gone.name, gone.identity, gone.serial, gone.size) == ("", "", "", 0)
    assert not scsi.over_iscsi("vda", tmp_path)


def test_the_map_of_an_identity(tmp_path: Path) -> None:
    multipath(tmp_path, "dm-3", ("sda", "sdb"), "mpath-3" + IDENTITY.removeprefix("naa."))
    multipath(tmp_path, "dm-4", ("sdc",), "mpath-36001405999")
    found = scsi.multipath_map(IDENTITY, tmp_path)
    assert found is not None
    assert (found.name, found.below) == ("dm-3", ("sda", "sdb"))
    assert scsi.multipath_map("t10.something", tmp_path) is None
    assert scsi.multipath_map("naa.1", tmp_path) is None


def test_lio_makes_the_identity_of_the_serial_number() -> None:
    # As a real target told it: serial number 5bcce707-e54e-4682-8396-47afe6045bb7.
    assert scsi.lio_identity("5bcce707-e54e-4682-8396-47afe6045bb7") == "naa.60014055bcce707e54e4682839647afe"


@given(st.binary(max_size=64))
def test_no_page_breaks_the_reading(page: bytes) -> None:
    found = scsi.unit_serial(page)
    assert found == found.strip()
    assert len(found) <= 64


def test_listeners_of_abstract_sockets(tmp_path: Path) -> None:
    head = "Num RefCount Protocol Flags Type St Inode Path\n"
    line = "0000000016: 00000002 00000000 00010000 0001 01 12090 @ISCSIADM_ABSTRACT_NAMESPACE\n"
    put(tmp_path / "net/unix", head + line)
    assert scsi.iscsid_listens(tmp_path)
    assert not scsi.multipathd_listens(tmp_path)


def test_targets_as_configfs_shows_them(tmp_path: Path) -> None:
    group = tmp_path / "iscsi" / lio.name_of(SERIAL) / "tpgt_1"
    store = tmp_path / "core" / lio.HBA / SERIAL
    put(group / "enable", "1")
    put(store / "udev_path", "/dev/loop3")
    link(group / "lun/lun_0/brickyard", store)
    (group / "np/10.0.0.1:3260").mkdir(parents=True)
    put(group / "acls/iqn.2026-01.org.x:one/lun_0/write_protect", "0")
    put(group / "acls/iqn.2026-01.org.x:one/info", "InitiatorName: iqn.2026-01.org.x:one")
    put(group / "acls/iqn.2026-01.org.x:two/lun_0/write_protect", "1")
    put(group / "acls/iqn.2026-01.org.x:two/info", "No active iSCSI Session for Initiator Endpoint: x")
    (tmp_path / "iscsi/iqn.2003-01.org.linux-iscsi:foreign/tpgt_1").mkdir(parents=True)
    (only,) = lio.targets(tmp_path)
    assert (only.volume_id, only.device, only.ready, only.portals) == (SERIAL, "/dev/loop3", True, ("10.0.0.1:3260",))
    assert [(one.initiator[-3:], one.read_only, one.connected) for one in only.consumers] == [
        ("one", False, True), ("two", True, False),
    ]  # fmt: skip
    assert lio.target("99999999-2222-4333-8444-555555555555", tmp_path) is None
    assert lio.portal_name("fd00::1", 3260) == "[fd00::1]:3260"
    assert lio.targets(tmp_path, fabric="iser") == ()
    assert lio.target(SERIAL, tmp_path, fabric="iser") is None, "what stands on the disk is the other one"
    (tmp_path / "iscsi" / lio.name_of(SERIAL, fabric="iser") / "tpgt_1/np/10.0.0.2:3260").mkdir(parents=True)
    (by_rdma,) = lio.targets(tmp_path, fabric="iser")
    assert (by_rdma.volume_id, by_rdma.target, by_rdma.portals) == (SERIAL, f"{only.target}:iser", ("10.0.0.2:3260",))
    assert lio.targets(tmp_path) == (only,)


def test_a_disk_without_any_target_is_of_both_kinds(tmp_path: Path) -> None:
    put(tmp_path / "core" / lio.HBA / SERIAL / "udev_path", "/dev/loop3")
    assert lio.target(SERIAL, tmp_path) is not None
    assert lio.target(SERIAL, tmp_path, fabric="iser") is not None


def test_by_what_a_session_goes(tmp_path: Path) -> None:
    session(tmp_path, 1)
    (found,) = scsi.sessions(TARGET, tmp_path)
    assert found.transport(tmp_path) == ""
    put(tmp_path / f"class/scsi_host/host{found.host}/proc_name", "iscsi_iser")
    assert found.transport(tmp_path) == "iser"
