"""What the mirror's connector believes: an array is the volume only when it stands on promised replicas alone."""

from __future__ import annotations

from pathlib import Path

from agent.connectors import registry
from agent.connectors.nvme_raid import fresh
from agent.wire.jobs import Connection, Portal
from tests.unit.agent.host.test_md import array
from tests.unit.agent.host.test_nvme import MIB, controller, namespace

NAMES = ("nqn.2026-01.org.x:a", "nqn.2026-01.org.x:b")
IDS = ("uuid.aaaaaaaa-2222-4333-8444-555555555555", "uuid.bbbbbbbb-2222-4333-8444-555555555555")
REPLICAS = tuple(
    Connection(protocol="nvme-tcp", target=name, portals=(Portal(address="10.0.0.1", port=4420),), nsid=1,
               identity=ident, size_bytes=MIB)
    for name, ident in zip(NAMES, IDS, strict=True)
)  # fmt: skip
MIRROR = Connection(
    protocol="nvme-raid", target="mirror1", identity="uuid.11111111-2222-4333-8444-555555555555", size_bytes=MIB,
    replicas=REPLICAS,
)  # fmt: skip
CONNECTOR = registry.connector("nvme-raid")


def legs(sys: Path) -> None:
    for number, (name, ident) in enumerate(zip(NAMES, IDS, strict=True)):
        controller(sys, number, number, target=name)
        namespace(sys, number, identity=ident)


def test_the_array_over_its_replicas(tmp_path: Path) -> None:
    legs(tmp_path)
    array(tmp_path, "md127", ("nvme0n1", "in_sync"), ("nvme1n1", "faulty"))
    found = CONNECTOR.present(MIRROR, tmp_path)
    assert found is not None
    assert (found.device, found.paths) == ("/dev/md127", ("nvme0n1", "nvme1n1"))


def test_a_stopped_a_smaller_or_a_foreign_array_is_not_the_volume(tmp_path: Path) -> None:
    legs(tmp_path)
    assert CONNECTOR.present(MIRROR, tmp_path) is None
    array(tmp_path, "md127", ("nvme0n1", "in_sync"), state="inactive")
    assert CONNECTOR.present(MIRROR, tmp_path) is None
    array(tmp_path, "md127", ("nvme0n1", "in_sync"))
    assert CONNECTOR.present(MIRROR.model_copy(update={"size_bytes": 2 * MIB}), tmp_path) is None
    namespace(tmp_path, 7)
    array(tmp_path, "md127", ("nvme0n1", "in_sync"), ("nvme7n1", "in_sync"))
    assert CONNECTOR.present(MIRROR, tmp_path) is None


def test_legs_that_know_less_are_not_read() -> None:
    told = [{"disk": name, "events": events} for name, events in (("a", 40), ("b", 39), ("c", 12))]
    assert [one["disk"] for one in fresh(told)] == ["a", "b"]
