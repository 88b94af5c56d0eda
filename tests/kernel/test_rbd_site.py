"""A volume in Ceph as a disk of a host, through the whole site: public API, coordinator, agent, the kernel's client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.host import rbd, sysfs
from tests.kernel.support import initiator
from tests.kernel.test_iscsi_site import detached, ended
from tests.support import ceph
from tests.support.ceph_site import Consumer, consuming
from tests.support.images import MIB

GIB = 1 << 30


@pytest.fixture(scope="module")
def consumer() -> Iterator[Consumer]:
    initiator.sh("modprobe -a fuse rbd dm_crypt")
    with ceph.running(GIB) as cluster, consuming(cluster) as made:
        made.site.api.encrypted_type()
        yield made


def attached(consumer: Consumer, volume: str, **more: Any) -> dict[str, Any]:
    site = consumer.site
    wanted = {"volume_id": volume, "host_id": site.volume_host, **more}
    told = site.api.post("/brickyard/v1/attachments", wanted)
    ended(site, told["operation"]["id"])
    return dict(site.api.get(f"/brickyard/v1/attachments/{told['attachment']['id']}")["attachment"])


@pytest.mark.parametrize("kind", ["__DEFAULT__", "secret"])
def test_attached_written_extended_read_and_detached(consumer: Consumer, kind: str) -> None:
    api, content = consumer.site.api, os.urandom(MIB)
    volume = api.made("far", volume_type=kind)
    made = attached(consumer, volume)
    assert (made["status"], made["transport"]) == ("attached", "rbd")
    device = Path(made["device"]["device"])
    assert (sysfs.mapper_device(device.name) is not None) == (kind == "secret")
    assert initiator.size(device) == GIB
    initiator.write(device, content)
    snapshot = api.post("/v3/snapshots", {"snapshot": {"volume_id": volume, "force": True}})["snapshot"]["id"]
    api.settle(120)
    api.post(f"/v3/volumes/{volume}/action", {"os-extend": {"new_size": 2}})
    consumer.site.clean()
    assert initiator.size(device) == 2 * GIB
    assert initiator.read(device, MIB) == content
    detached(consumer.site, made["id"])
    consumer.site.clean()
    assert rbd.mapped() == ()
    assert consumer.read(volume, MIB) == content
    again = attached(consumer, volume, mode="ro")
    device = Path(again["device"]["device"])
    assert initiator.read(device, MIB) == content
    with pytest.raises(PermissionError):
        initiator.write(device, content)
    detached(consumer.site, again["id"])
    gone = [f"snapshots/{snapshot}", f"volumes/{volume}"]
    if kind != "secret":  # the keys of a copy of its own take a guest a minute
        copy = api.made("copy", snapshot_id=snapshot)
        assert consumer.read(copy, MIB) == content
        gone.append(f"volumes/{copy}")
    for one in gone:
        api.delete(f"/v3/{one}")
        api.settle(120)
    consumer.site.clean()
    consumer.emptied()
