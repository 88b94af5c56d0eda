"""What the NVMe connector believes: only a namespace that says exactly what the target promised."""

from __future__ import annotations

from pathlib import Path

from agent.connectors import registry
from agent.connectors.nvme import claim
from agent.host import nvme
from agent.wire.jobs import Connection, Portal
from tests.unit.agent.host.test_nvme import IDENTITY, MIB, TARGET, controller, namespace

CONNECTION = Connection(
    protocol="nvme-tcp", target=TARGET, portals=(Portal(address="10.0.0.1", port=4420),), nsid=1, identity=IDENTITY,
    size_bytes=MIB,
)  # fmt: skip
CONNECTOR = registry.connector("nvme-tcp")


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
