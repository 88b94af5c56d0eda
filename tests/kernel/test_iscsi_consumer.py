"""A consumer that is no host of ours: offered a volume by the Block Storage API, reaching it with open-iscsi alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.host import lio
from tests.kernel.support import initiator
from tests.kernel.support.initiator import sh, until
from tests.support.images import MIB
from tests.support.site import Site, running

IQN = "iqn.2026-01.org.example:stranger"
CONNECTOR = {"host": "stranger", "initiator": IQN, "ip": "127.0.0.1"}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with initiator.ready(), running(agent_sets=('targets.lio.portals=["127.0.0.1"]',)) as made:
        yield made


def disks() -> set[str]:
    return {path.name for path in Path("/sys/block").glob("sd*")}


def node(told: dict[str, Any], iface: str) -> str:
    return f"iscsiadm -m node -T {told['target_iqn']} -p {told['target_portal']} -I {iface}"


def record(told: dict[str, Any], iface: str, iqn: str) -> None:
    """What os-brick writes before it logs in."""
    sh(f"iscsiadm -m iface -I {iface} -o new; iscsiadm -m iface -I {iface} -o update -n iface.initiatorname -v {iqn}")
    sh(f"{node(told, iface)} -o new")
    for name, value in (("authmethod", told["auth_method"]), ("username", told["auth_username"]),
                        ("password", told["auth_password"])):  # fmt: skip
        sh(f"{node(told, iface)} -o update -n node.session.auth.{name} -v {value}")


@contextmanager
def logged_in(told: dict[str, Any]) -> Iterator[Path]:
    before = disks()
    record(told, "stranger", IQN)
    sh(f"{node(told, 'stranger')} --login")
    try:
        until(lambda: bool(disks() - before), what="no disk came")
        yield Path("/dev") / (disks() - before).pop()
    finally:
        sh(f"{node(told, 'stranger')} --logout")
        sh(f"{node(told, 'stranger')} -o delete; iscsiadm -m iface -I stranger -o delete")


def test_offered_used_and_cut(site: Site) -> None:
    volume = site.api.made("lent")
    body = {"attachment": {"volume_uuid": volume, "instance_uuid": None, "connector": CONNECTOR}}
    made = site.api.post("/v3/attachments", body)["attachment"]
    told = made["connection_info"]
    assert told["driver_volume_type"] == "iscsi"
    assert site.api.get(f"/v3/attachments/{made['id']}")["attachment"]["connection_info"] == told
    site.api.post(f"/v3/attachments/{made['id']}/action", {"os-complete": None})
    content = os.urandom(MIB)
    with logged_in(told) as device:
        initiator.write(device, content)
        with next(site.folder.rglob(f"volumes/{volume}")).open("rb") as file:
            assert file.read(MIB) == content
        assert initiator.size(device) == 1 << 30
    record(told, "thief", f"{IQN}-not")
    assert "Logged in" not in sh(f"{node(told, 'thief')} --login 2>&1", check=False)
    sh(f"{node(told, 'thief')} -o delete; iscsiadm -m iface -I thief -o delete", check=False)
    assert site.api.delete(f"/v3/attachments/{made['id']}") == {"attachments": []}
    assert not lio.targets()
    assert site.api.volume(volume)["status"] == "available"
    site.clean()


def test_the_older_calls(site: Site) -> None:
    volume = site.api.made("older")
    path = f"/v3/volumes/{volume}/action"
    told = site.api.post(path, {"os-initialize_connection": {"connector": CONNECTOR}})["connection_info"]
    assert site.api.post(path, {"os-initialize_connection": {"connector": CONNECTOR}})["connection_info"] == told
    with logged_in(told["data"]) as device:
        content = os.urandom(MIB)
        initiator.write(device, content)
        assert initiator.read(device, MIB) == content
    site.api.post(path, {"os-terminate_connection": {"connector": CONNECTOR}})
    assert not lio.targets()
    assert site.api.volume(volume)["status"] == "available"
    site.clean()
