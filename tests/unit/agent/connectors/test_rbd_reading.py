"""What the connector of images believes, and which keyrings it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.connectors import registry
from agent.connectors.config import ConnectorsSection
from agent.connectors.errors import KeyringUnusable
from agent.connectors.rbd import RbdConnector
from agent.host import rbd
from agent.wire.jobs import CephImage, Connection, Portal
from tests.unit.agent.host.test_rbd import MIB, VOLUME, mapped

CONNECTION = Connection(
    protocol="rbd", target=VOLUME, portals=(Portal(address="10.0.0.1", port=6789),), identity="image.10aa0",
    size_bytes=MIB, ceph=CephImage(pool="volumes", fsid="11111111-2222-4333-8444-555555555555"),
)  # fmt: skip


def test_only_the_image_that_was_promised_is_there(tmp_path: Path) -> None:
    connector = RbdConnector()
    mapped(tmp_path, 0)
    found = connector.present(CONNECTION, tmp_path)
    assert found is not None
    assert (found.device, found.paths, found.size, found.diskseq) == ("/dev/rbd0", ("rbd0",), MIB, 7)
    assert CONNECTION.ceph is not None
    for other in (
        {"identity": "image.10aa9"},
        {"size_bytes": 2 * MIB},
        {"target": VOLUME.replace("1", "9")},
        {"ceph": CONNECTION.ceph.model_copy(update={"read_only": True})},
    ):
        assert connector.present(CONNECTION.model_copy(update=other), tmp_path) is None


def test_the_first_user_of_a_keyring_that_others_can_not_read(tmp_path: Path) -> None:
    connector, file = RbdConnector(), tmp_path / "keyring"
    with pytest.raises(KeyringUnusable, match="no such file"):
        connector._who()
    connector.keyring = file
    with pytest.raises(KeyringUnusable, match="No such file"):
        connector._who()
    file.write_text("[client.a]\nkey = AQ==\n[client.b]\nkey = Ag==\n")
    file.chmod(0o644)
    with pytest.raises(KeyringUnusable, match="others can read it") as caught:
        connector._who()
    assert "AQ==" not in str(caught.value)
    file.chmod(0o640)
    assert connector._who() == ("a", b"AQ==")
    file.write_text("")
    with pytest.raises(KeyringUnusable, match="no key"):
        connector._who()


async def test_nothing_to_detach_where_the_client_is_not_loaded() -> None:
    if rbd.available():
        pytest.skip("this kernel has it")
    assert not await RbdConnector().detach(CONNECTION)


async def test_who_has_no_privileges_has_mapped_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a client that was loaded after the agent began would leave an attachment that no detach could end."""
    monkeypatch.setattr(rbd, "available", lambda: True)
    assert not await RbdConnector().detach(CONNECTION)


def test_without_a_keyring_a_host_has_no_such_ability(tmp_path: Path) -> None:
    section = ConnectorsSection(ceph_keyring=tmp_path / "none")
    assert not section.maps_images
    assert not ConnectorsSection(ceph_keyring=tmp_path / ("x" * 300)).maps_images  # what can not be looked at
    registry.configure(section)
    assert "rbd" not in registry.abilities()
