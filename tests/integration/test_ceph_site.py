"""Volumes in Ceph on a site of real processes, by the real clients: made, filled, snapshot, cloned, grown, deleted."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.livesite import LiveSite, live_site
from tests.support import ceph

pytestmark = [
    pytest.mark.clients,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    ceph.NEEDED,
]
SECRET = "457eb676-33da-42ec-9a8c-9293d545c337"
CONTENT = b"brick" * 100_000 + b"\0" * (8 << 20) + b"end"


@pytest.fixture(scope="module")
def cluster() -> Iterator[ceph.Cluster]:
    with ceph.running() as started:
        # The agents run as another user.
        started.root.chmod(0o755)
        yield started


@pytest.fixture(scope="module")
def site(cluster: ceph.Cluster) -> Iterator[LiveSite]:
    with tempfile.TemporaryDirectory(prefix="brickyard-ceph-", dir="/var/tmp") as folder:
        top = Path(folder)
        top.chmod(0o777)
        keyring = top / "keyring"
        keyring.write_text(cluster.keyring.read_text())
        keyring.chmod(0o640)
        os.chown(keyring, *ceph.agent_account())
        told = {
            "driver": "rbd", "pool": ceph.POOL, "conf": cluster.conf, "keyring": keyring, "work_dir": f"{top}/work",
            "secret_uuid": SECRET,
        }  # fmt: skip
        with live_site(*(f"backends.ceph.{key}={value}" for key, value in told.items()), agents=1) as made:
            made.run("openstack", "volume", "type", "create", "ceph", "--property", "volume_backend_name=ceph")
            pools = f"/v3/{made.session().get_project_id()}/scheduler-stats/get_pools"
            while "@ceph#" not in json.dumps(made.call("GET", pools)[1]):
                time.sleep(0.5)
            yield made


def shown(site: LiveSite, volume: str) -> dict[str, Any]:
    site.settled()
    found = dict(site.openstack("volume", "show", volume))
    assert found["status"] == "available", found
    return found


def digest(cluster: ceph.Cluster, volume: str) -> str:
    """Of the first bytes: what comes behind them is nothing, and much of it."""
    command = ["rbd", "--conf", str(cluster.conf), "export", "--no-progress", f"{ceph.POOL}/byv-{volume}", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as export:
        assert export.stdout is not None
        data = export.stdout.read(len(CONTENT))
        export.kill()
    return hashlib.sha256(data).hexdigest()


def test_a_volume_lives_in_ceph_from_image_to_trash(site: LiveSite, cluster: ceph.Cluster, tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.write_bytes(CONTENT)
    image = site.openstack("image", "create", "--disk-format", "raw", "--file", str(file), "picture")
    made = site.openstack("volume", "create", "--size", "1", "--type", "ceph", "--image", image["id"])
    volume = shown(site, made["id"])
    assert volume["os-vol-host-attr:host"].partition("@")[2].partition("#")[0] == "ceph"
    assert digest(cluster, made["id"]) == hashlib.sha256(CONTENT).hexdigest()
    snapshot = site.openstack("volume", "snapshot", "create", "--volume", made["id"], "snap")
    site.settled()
    clone = site.openstack("volume", "create", "--size", "2", "--snapshot", snapshot["id"])
    shown(site, clone["id"])
    site.run("openstack", "volume", "set", "--size", "3", clone["id"])
    assert shown(site, clone["id"])["size"] == 3
    told = json.loads(cluster.rbd("info", "--format", "json", f"{ceph.POOL}/byv-{clone['id']}"))
    assert (told["size"], told["parent"]["image"]) == (3 << 30, f"bys-{snapshot['id']}")
    site.run("openstack", "volume", "snapshot", "delete", snapshot["id"])
    site.settled()
    site.run("openstack", "volume", "delete", made["id"])
    site.settled()
    assert digest(cluster, clone["id"]) == hashlib.sha256(CONTENT).hexdigest()
    site.run("openstack", "volume", "delete", clone["id"])
    site.settled()
    assert json.loads(site.run("openstack", "volume", "list", "-f", "json")) == []
    assert cluster.rbd("ls", ceph.POOL) == ""


def test_an_attachment_tells_a_server_the_cluster_and_never_the_key(site: LiveSite, cluster: ceph.Cluster) -> None:
    made = site.openstack("volume", "create", "--size", "1", "--type", "ceph")
    shown(site, made["id"])
    body = {
        "attachment": {
            "volume_uuid": made["id"], "instance_uuid": SECRET, "connector": {"host": "compute", "initiator": "iqn.x:y"}
        }
    }  # fmt: skip
    path = f"/v3/{site.session().get_project_id()}/attachments"
    status, answer = site.call("POST", path, json=body)
    assert status == 200, answer
    info = answer["attachment"]["connection_info"]
    assert (info["driver_volume_type"], info["name"]) == ("rbd", f"{ceph.POOL}/byv-{made['id']}")
    assert (info["secret_uuid"], info["auth_username"]) == (SECRET, cluster.user)
    assert info["hosts"] == ["127.0.0.1"]
    key = cluster.keyring.read_text().partition("key = ")[2].split()[0]
    assert key not in json.dumps(answer)
    site.call("DELETE", f"{path}/{answer['attachment']['id']}")
    site.run("openstack", "volume", "delete", made["id"])
    site.settled()
