"""What the iSCSI connector believes: only a disk that says exactly what the target promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.connectors import registry
from agent.connectors.base import Look
from agent.connectors.errors import NoConnector
from agent.connectors.iscsi import IscsiConnector
from agent.connectors.iscsi_paths import claim, session_at
from agent.host import scsi
from agent.wire.jobs import Connection, Portal
from tests.unit.agent.host.test_scsi import IDENTITY, SERIAL, TARGET, multipath, session

CONNECTION = Connection(
    protocol="iscsi", target=TARGET, portals=(Portal(address="10.0.0.1", port=3260),), lun=0, identity=IDENTITY,
    serial=SERIAL, size_bytes=1 << 20,
)  # fmt: skip
CONNECTOR = IscsiConnector()


def test_one_path(tmp_path: Path) -> None:
    session(tmp_path, 1)
    found = CONNECTOR.present(CONNECTION, tmp_path)
    assert found is not None
    assert (found.device, found.paths, found.size, found.diskseq) == ("/dev/sda", ("sda",), 1 << 20, 7)


def test_two_paths_and_their_map(tmp_path: Path) -> None:
    session(tmp_path, 1)
    session(tmp_path, 2, host=4, address="10.1.0.1", name="sdb")
    multipath(tmp_path, "dm-3", ("sda", "sdb"), "mpath-3" + IDENTITY.removeprefix("naa."))
    found = CONNECTOR.present(CONNECTION, tmp_path)
    assert found is not None
    assert (found.name, found.paths) == ("dm-3", ("sda", "sdb"))


def test_another_volume_at_the_address_is_not_there(tmp_path: Path) -> None:
    session(tmp_path, 1, identity="naa.60014059999999999999999999999999")
    assert CONNECTOR.present(CONNECTION, tmp_path) is None
    (disk,) = scsi.sessions(TARGET, tmp_path)[0].disks
    assert "promised is" in claim(CONNECTION, disk)
    assert "serial number" in claim(CONNECTION.model_copy(update={"identity": disk.identity, "serial": "x"}), disk)
    assert "bytes" in claim(CONNECTION.model_copy(update={"identity": disk.identity, "size_bytes": 1 << 30}), disk)


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(NoConnector, match="no connector for nvme-of; it has: local, eckd, fc, iscsi"):
        registry.connector("nvme-of")


def three(sys: Path) -> Connection:
    """Two portals have a session and one has none."""
    session(sys, 1)
    session(sys, 2, host=4, address="10.1.0.1", name="sdb")
    multipath(sys, "dm-3", ("sda", "sdb"), "mpath-3" + IDENTITY.removeprefix("naa."))
    portals = tuple(Portal(address=address, port=3260) for address in ("10.0.0.1", "10.1.0.1", "10.2.0.1"))
    return CONNECTION.model_copy(update={"portals": portals})


def test_in_use_a_portal_without_a_session_is_missing(tmp_path: Path) -> None:
    look = CONNECTOR.seen(three(tmp_path), tmp_path)
    assert (look.paths, look.size, look.wrong, look.down) == (("sda", "sdb", "dm-3"), 1 << 20, (), ())
    assert look.missing == ("there is no session at 10.2.0.1:3260",)


def test_in_use_a_lost_session_is_down_and_the_kernels_to_bring_back(tmp_path: Path) -> None:
    connection = three(tmp_path)
    (tmp_path / "class/iscsi_session/session2/state").write_text("FAILED\n")
    look = CONNECTOR.seen(connection, tmp_path)
    assert look.down == ("the session at 10.1.0.1:3260 is failed",)
    assert look.missing == ("there is no session at 10.2.0.1:3260",)


def test_in_use_another_volume_on_one_path_is_told(tmp_path: Path) -> None:
    connection = three(tmp_path)
    (tmp_path / "class/scsi_device/4:0:0:0/device/wwid").write_text("naa.60014059999999999999999999999999\n")
    (told,) = CONNECTOR.seen(connection, tmp_path).wrong
    assert told.startswith("/dev/sdb: ")


def test_what_is_not_attached_misses_nothing(tmp_path: Path) -> None:
    assert CONNECTOR.seen(CONNECTION, tmp_path) == Look()
    session(tmp_path, 1)
    single = CONNECTION.model_copy(update={"portals": (*CONNECTION.portals, Portal(address="10.2.0.1", port=3260))})
    assert CONNECTOR.seen(single, tmp_path).missing == (), "without a map one path is all there is to be"


def test_the_session_at_a_portal_is_found_however_its_address_is_written(tmp_path: Path) -> None:
    session(tmp_path, 1)
    session(tmp_path, 2, host=4, address="fd00::1", name="sdb")
    found = session_at(CONNECTION, Portal(address="FD00:0:0::0001", port=3260), tmp_path)
    assert found is not None
    assert found.number == 2
