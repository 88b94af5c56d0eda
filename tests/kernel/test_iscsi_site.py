"""A volume of one host on another, through the whole site: public API, coordinator, two agents, the kernel's iSCSI."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.host import lio, scsi, sysfs
from tests.kernel.support import initiator
from tests.support.api import ACTIVE
from tests.support.images import MIB
from tests.support.site import Site, running

HERE, AWAY = "host-b", "host-a"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with initiator.ready(), running(agent_sets=('targets.lio.portals=["127.0.0.1"]',)) as made:
        yield made


def attached(site: Site, volume: str, **more: Any) -> dict[str, Any]:
    told = site.api.post("/brickyard/v1/attachments", {"volume_id": volume, "host_id": AWAY, **more})
    ended(site, told["operation"]["id"])
    return dict(site.api.get(f"/brickyard/v1/attachments/{told['attachment']['id']}")["attachment"])


def detached(site: Site, attachment: str) -> None:
    told = site.api.delete(f"/brickyard/v1/attachments/{attachment}")
    ended(site, told["operation"]["id"])


def ended(site: Site, operation: str, *, good: bool = True) -> dict[str, Any]:
    """The operation at its end."""
    found = site.api.wait(operation, 60)
    while found["state"] in ACTIVE:
        found = site.api.wait(operation, 60)
    assert (found["state"] == "done") == good, (found, site.logs())
    return found


def backing(site: Site, volume: str) -> Path:
    return next(site.folder.rglob(f"volumes/{volume}"))


def test_attach_write_read_extend_detach(site: Site) -> None:
    volume = site.api.made("far")
    made = attached(site, volume)
    assert (made["status"], made["transport"], made["host_id"]) == ("attached", "iscsi", AWAY)
    device = Path(made["device"]["device"])
    content = os.urandom(MIB)
    initiator.write(device, content)
    with backing(site, volume).open("rb") as file:
        assert file.read(MIB) == content
    assert initiator.read(device, MIB) == content

    site.api.post(f"/v3/volumes/{volume}/action", {"os-extend": {"new_size": 2}})
    site.clean()
    assert initiator.size(device) == 2 << 30
    assert initiator.read(device, MIB) == content

    detached(site, made["id"])
    site.clean()
    assert not scsi.sessions()
    assert not lio.targets()
    assert site.api.volume(volume)["status"] == "available"


def test_encrypted_volume_is_decrypted_where_it_is_used(site: Site) -> None:
    volume = site.api.made("secret", volume_type=site.api.encrypted_type())
    made = attached(site, volume)
    device = made["device"]
    assert device["device"].startswith("/dev/mapper/brickyard-")
    assert not device["raw"]
    content = os.urandom(MIB)
    initiator.write(Path(device["device"]), content)
    with backing(site, volume).open("rb") as file:
        assert content not in file.read(32 * MIB)
    detached(site, made["id"])
    again = attached(site, volume)
    assert initiator.read(Path(again["device"]["device"]), MIB) == content
    detached(site, again["id"])
    site.clean()


def test_refusals_leave_nothing(site: Site) -> None:
    volume = site.api.made("busy")
    made = attached(site, volume)
    name = Path(made["device"]["device"]).name
    with initiator.mapped(name):
        told = site.api.delete(f"/brickyard/v1/attachments/{made['id']}")
        failed = ended(site, told["operation"]["id"], good=False)
        assert "brickyard-test" in str(failed["error"])
        assert sysfs.text(sysfs.SYS / "block" / name / "device/state") == "running"
    detached(site, made["id"])
    site.clean()
    secrets = re.findall(r"node\.session\.auth\.password", site.logs())
    assert not secrets
