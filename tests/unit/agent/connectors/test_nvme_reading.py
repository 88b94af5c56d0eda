"""What the NVMe connector believes: only a namespace that says exactly what the target promised."""

from __future__ import annotations

from pathlib import Path

from agent.connectors.base import Look
from agent.connectors.nvme import NvmeConnector, claim
from agent.host import nvme
from agent.wire.jobs import Connection, Portal
from tests.unit.agent.host.test_nvme import IDENTITY, MIB, TARGET, controller, namespace
from tests.unit.agent.host.test_scsi import put

CONNECTION = Connection(
    protocol="nvme-tcp", target=TARGET, portals=(Portal(address="10.0.0.1", port=4420),), nsid=1, identity=IDENTITY,
    size_bytes=MIB,
)  # fmt: skip
CONNECTOR = NvmeConnector()


def test_the_disk_over_its_paths(tmp_path: Path) -> None:
    controller(tmp_path, 0, 0)
    controller(tmp_path, 0, 1, address="10.1.0.1", state="connecting")
    namespace(tmp_path, 0)
    found = CONNECTOR.present(CONNECTION, tmp_path)
    assert found is not None
    assert (found.device, found.paths, found.size, found.diskseq) == ("/dev/nvme0n1", ("nvme0", "nvme1"), MIB, 9)


def test_another_volume_or_a_smaller_one_is_not_there(tmp_path: Path) -> None:
    controller(tmp_path, 0, 0)
    namespace(tmp_path, 0)
    for other in (
        {"identity": "uuid.99999999-2222-4333-8444-555555555555"},
        {"size_bytes": 2 * MIB},
        {"nsid": 2},
        {"target": f"{TARGET}0"},
    ):
        assert CONNECTOR.present(CONNECTION.model_copy(update=other), tmp_path) is None


def test_without_a_number_the_identity_finds_it_among_others(tmp_path: Path) -> None:
    controller(tmp_path, 0, 0)
    namespace(tmp_path, 0, identity="uuid.99999999-2222-4333-8444-555555555555")
    namespace(tmp_path, 0, nsid=2)
    found = CONNECTOR.present(CONNECTION.model_copy(update={"nsid": None}), tmp_path)
    assert found is not None
    assert found.name == "nvme0n2"


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    controller(tmp_path, 0, 0)
    namespace(tmp_path, 0, identity="")
    (one,) = nvme.subsystems(tmp_path)
    assert "it says it is nothing" in claim(CONNECTION, one.namespaces[0])


def test_in_use_paths_that_are_down_or_missing_are_told(tmp_path: Path) -> None:
    controller(tmp_path, 0, 0)
    controller(tmp_path, 0, 1, address="10.1.0.1", state="connecting")
    namespace(tmp_path, 0)
    portals = tuple(Portal(address=address, port=4420) for address in ("10.0.0.1", "10.1.0.1", "10.2.0.1"))
    connection = CONNECTION.model_copy(update={"portals": portals})
    assert CONNECTOR.seen(connection, tmp_path).missing == (), "this kernel takes one path alone"
    put(tmp_path / "module/nvme_core/parameters/multipath", "Y")
    look = CONNECTOR.seen(connection, tmp_path)
    assert (look.paths, look.size, look.wrong) == (("nvme0n1", "nvme0", "nvme1"), MIB, ())
    assert look.down == ("the path by 10.1.0.1:4420 is connecting",)
    assert look.missing == ("there is no path by 10.2.0.1:4420",)


def test_in_use_what_has_changed_is_told(tmp_path: Path) -> None:
    assert CONNECTOR.seen(CONNECTION, tmp_path) == Look()
    controller(tmp_path, 0, 0)
    assert CONNECTOR.seen(CONNECTION, tmp_path).wrong == ("the target has no such disk any more",)
    namespace(tmp_path, 0, identity="uuid.99999999-2222-4333-8444-555555555555")
    (told,) = CONNECTOR.seen(CONNECTION, tmp_path).wrong
    assert "promised is" in told
