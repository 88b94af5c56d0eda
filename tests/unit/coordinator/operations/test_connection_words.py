"""How a consumer is told of a volume: the words of os-brick, and of the driver that first handed out DASDs."""

from __future__ import annotations

from typing import Any

import pytest

from agent.wire.jobs import ChannelDevice, Connection, Fabric, FabricPort
from coordinator.operations.connection_info import words

WWID = "naa.60050763000000000000000000000010"
PORTS = ("5005076300c20c8a", "5005076300c70c8a")


def told(**way: Any) -> dict[str, Any]:
    return words(Connection(target=WWID, identity=WWID, size_bytes=1 << 30, **way))


def fabric(**more: Any) -> Fabric:
    return Fabric(ports=tuple(FabricPort(wwpn=wwpn, lun=10 + number) for number, wwpn in enumerate(PORTS)), **more)


def test_fibre_channel() -> None:
    assert told(protocol="fc", fabric=fabric()) == {
        "driver_volume_type": "fibre_channel", "target_discovered": False, "target_wwn": list(PORTS), "target_lun": 10,
        "target_wwns": list(PORTS), "target_luns": [10, 11],
    }  # fmt: skip
    assert told(protocol="fc", fabric=fabric(addressing="SAM2"))["addressing_mode"] == "SAM2"


@pytest.mark.parametrize(("bus_id", "cula", "unit"), [("0.0.8001", 0x80, 1), ("0.0.1a2b", 0x1A, 0x2B)])
def test_a_dasd_by_control_unit_and_unit_address(bus_id: str, cula: int, unit: int) -> None:
    info = told(protocol="eckd", channel=ChannelDevice(bus_id=bus_id))
    assert (info["driver_volume_type"], info["cula"], info["unit_address"]) == ("fibre_channel_eckd", cula, unit)


def test_iser_is_iscsi_by_another_name() -> None:
    portals = ({"address": "10.0.0.1", "port": 3260},)
    tcp = told(protocol="iscsi", portals=portals, lun=0)
    rdma = told(protocol="iser", transport="iser", portals=portals, lun=0)
    assert (tcp.pop("driver_volume_type"), rdma.pop("driver_volume_type")) == ("iscsi", "iser")
    assert tcp == rdma


def test_vhost_in_the_words_of_qemu() -> None:
    endpoint = Connection(protocol="vhost", target="naa.5001405abcdef012", identity=WWID, size_bytes=1 << 30, lun=0)
    assert words(endpoint) == {
        "driver_volume_type": "vhost_scsi", "target_wwpn": "naa.5001405abcdef012", "target_lun": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("protocol", "word"), [("nvme-rdma", "rdma"), ("nvme-tcp", "tcp")])
def test_nvme_by_the_words_of_each_form(protocol: str, word: str) -> None:
    from os_brick.initiator.connectors.nvmeof import Portal

    info = told(protocol=protocol, transport=word, portals=({"address": "10.0.0.1", "port": 4420},), nsid=1)
    assert (info["driver_volume_type"], info["transport_type"]) == ("nvmeof", word)
    (portal,) = info["portals"]
    assert portal[:2] == ["10.0.0.1", "4420"]
    assert Portal(None, *portal).transport == word


def test_what_is_on_no_fabric_is_told_as_it_always_was() -> None:
    plain = Connection(protocol="eckd", target="0.0.8001", identity=WWID, size_bytes=1,
                       channel=ChannelDevice(bus_id="0.0.8001"))  # fmt: skip
    assert "fabric" not in plain.model_dump()
    assert Connection.model_validate(plain.model_dump()) == plain
    held = Connection(protocol="fc", target=WWID, identity=WWID, size_bytes=1, fabric=fabric())
    assert Connection.model_validate_json(held.model_dump_json()) == held
