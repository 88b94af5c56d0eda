"""NVMe/TCP through the whole site: public API, coordinator, agents, kernel; and a consumer that uses os-brick."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.host import lio, nvme, nvmet
from tests.kernel.support import fabric, initiator
from tests.kernel.test_iscsi_site import AWAY, attached, backing, detached
from tests.support.images import MIB
from tests.support.site import Site, running

SECOND = "10.9.9.1"
NQN = "nqn.2026-01.org.example:stranger"
CONNECTOR = {"host": "stranger", "nqn": NQN, "ip": "127.0.0.1"}
# What Nova's host runs: it gets the connection as JSON, says its device, and detaches when it is told to.
OS_BRICK = """
import json, sys, tempfile
from agent.connectors import _brick
_brick.load()
import os_brick
from os_brick.initiator import connector
from os_brick.privileged import default
from oslo_concurrency import lockutils
from oslo_config import cfg
cfg.CONF([], project="test")
locks = tempfile.mkdtemp()
lockutils.set_defaults(locks)
os_brick.setup(cfg.CONF)
default.set_client_mode(False)
told = json.loads(sys.stdin.readline())
made = connector.InitiatorConnector.factory("NVMEOF", None, use_multipath=True, device_scan_attempts=5)
found = made.connect_volume(dict(told))
print(json.dumps(found["path"]), flush=True)
sys.stdin.readline()
made.disconnect_volume(dict(told), found)
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    sets = (f'targets.nvmet.portals=["127.0.0.1", "{SECOND}"]',)
    with fabric.ready(f"{SECOND}/24"), running(agent_sets=sets) as made:
        yield made


def test_attach_write_read_extend_detach(site: Site) -> None:
    volume = site.api.made("far")
    made = attached(site, volume)
    assert (made["status"], made["transport"], made["host_id"]) == ("attached", "nvme-tcp", AWAY)
    device = Path(made["device"]["device"])
    content = os.urandom(MIB)
    initiator.write(device, content)
    with backing(site, volume).open("rb") as file:
        assert file.read(MIB) == content
    site.api.post(f"/v3/volumes/{volume}/action", {"os-extend": {"new_size": 2}})
    site.clean()
    assert initiator.size(device) == 2 << 30
    assert initiator.read(device, MIB) == content
    detached(site, made["id"])
    site.clean()
    assert not nvme.subsystems()
    assert not nvmet.subsystems()
    assert not lio.targets()
    assert site.api.volume(volume)["status"] == "available"


def test_a_consumer_with_os_brick(site: Site) -> None:
    volume = site.api.made("lent")
    body = {"attachment": {"volume_uuid": volume, "instance_uuid": None, "connector": CONNECTOR}}
    made = site.api.post("/v3/attachments", body)["attachment"]
    told: dict[str, Any] = made["connection_info"]
    assert (told["driver_volume_type"], told["host_nqn"]) == ("nvmeof", NQN)
    site.api.post(f"/v3/attachments/{made['id']}/action", {"os-complete": None})
    older = {
        key: told[key] for key in ("nqn", "target_portal", "target_port", "transport_type", "host_nqn", "volume_nguid")
    }
    content = os.urandom(MIB)
    for form in (told, older):
        with subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", OS_BRICK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as brick:
            assert brick.stdin is not None
            assert brick.stdout is not None
            brick.stdin.write(json.dumps(form) + "\n")
            brick.stdin.flush()
            device = Path(json.loads(brick.stdout.readline()))
            if form is told:
                initiator.write(device, content)
            assert initiator.read(device, MIB) == content
            brick.stdin.write("\n")
            brick.stdin.flush()
            assert brick.wait() == 0
    with backing(site, volume).open("rb") as file:
        assert file.read(MIB) == content
    assert site.api.delete(f"/v3/attachments/{made['id']}") == {"attachments": []}
    assert not nvmet.subsystems()
    assert site.api.volume(volume)["status"] == "available"
    site.clean()
