"""How a volume of another host is reached: what was known before is told as it was, and what can not be is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agent.wire.jobs import LOCAL_GUESTS, Connection, WantedExport

BASE: dict[str, Any] = {
    "protocol": "iscsi",
    "target": "iqn.2026-01.org.x:v",
    "identity": "naa.6001405",
    "size_bytes": 1,
}
PORTAL = {"address": "10.0.0.1", "port": 3260}
REPLICA = {**BASE, "protocol": "nvme-tcp", "portals": [PORTAL]}


def test_what_an_older_agent_knows_is_told_as_it_was() -> None:
    told = Connection.model_validate({**BASE, "portals": [PORTAL]}).model_dump(mode="json")
    assert not {"fabric", "ceph", "replicas", "degraded"} & set(told)
    assert told["portals"] == [PORTAL]


def test_by_vhost_there_are_no_portals_and_one_consumer() -> None:
    endpoint = Connection.model_validate({**BASE, "protocol": "vhost", "target": "naa.5001405abcdef012", "lun": 0})
    assert Connection.model_validate_json(endpoint.model_dump_json()) == endpoint
    wanted = {"attachment_id": "11111111-2222-4333-8444-555555555555", "protocol": "vhost", "initiator": LOCAL_GUESTS}
    assert WantedExport.model_validate(wanted).mode == "rw"
    for wrong in ({"initiator": "iqn.2026-01.org.x:a"}, {"auth": "chap"}):
        with pytest.raises(ValidationError, match="vhost is for local-guests"):
            WantedExport.model_validate({**wanted, **wrong})


def test_images_of_a_cluster_survive_the_wire_and_go_by_rbd_alone() -> None:
    ceph = {"pool": "volumes", "fsid": "11111111-2222-4333-8444-555555555555", "messenger": "v2"}
    told = {**BASE, "protocol": "rbd", "target": "byv-1", "portals": [PORTAL], "ceph": ceph}
    image = Connection.model_validate(told)
    assert Connection.model_validate_json(image.model_dump_json()) == image
    for wrong in ({"ceph": None}, {"protocol": "iscsi"}, {"ceph": {**ceph, "pool": "a,b"}}, {"portals": []}):
        with pytest.raises(ValidationError):
            Connection.model_validate({**told, **wrong})


def test_mirrors_survive_the_wire() -> None:
    replicas = [REPLICA, {**REPLICA, "target": "nqn.2026-01.org.x:b"}]
    mirror = Connection.model_validate({**BASE, "replicas": replicas, "degraded": True})
    assert Connection.model_validate_json(mirror.model_dump_json()) == mirror


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"replicas": [REPLICA, REPLICA]},
        {"replicas": [{**BASE, "replicas": [REPLICA]}]},
        {"portals": [PORTAL], "protocol": "iser"},
        {"portals": [PORTAL], "protocol": "nvme-rdma", "transport": "tcp"},
    ],
)
def test_what_can_not_be_reached_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Connection.model_validate({**BASE, **more})
