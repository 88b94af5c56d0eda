"""What the last words of Ceph's tools mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.backends.errors import NoSpace
from agent.backends.rbd_cluster import Monitors, RbdCluster, monitors_of
from agent.backends.rbd_errors import CephFailed, CephPoolMissing, ClusterDenied, ClusterHangs
from tests.unit.agent.backends.test_rbd_config import place


@pytest.mark.parametrize(
    ("words", "status", "error"),
    [
        ("rbd: error opening pool 'volumes': (2) No such file or directory", 2, CephPoolMissing),
        ("rbd: couldn't connect to the cluster!\n(1) Operation not permitted", 1, ClusterDenied),
        ("[errno 13] RADOS permission denied\nerror connecting: (13) Permission denied", 1, ClusterDenied),
        ("librbd: failed: (110) Connection timed out", 1, ClusterHangs),
        ("", 110, ClusterHangs),
        ("[errno 110] RADOS timed out (error connecting to the cluster)", 1, ClusterHangs),
        ("rbd: import failed: (28) No space left on device", 28, NoSpace),
        ("rbd: failed: (122) Disk quota exceeded", 122, NoSpace),
        ("rbd: error: (5) Input/output error", 5, CephFailed),
        ("", 22, CephFailed),
    ],
)
def test_each_failure_has_its_error(tmp_path: Path, words: str, status: int, error: type[Exception]) -> None:
    found = RbdCluster("ceph", place(tmp_path, 0o600)).failure("rbd create", words, status)
    assert type(found) is error
    assert found.remedy
    assert "ceph" in str(found)


def test_the_key_is_that_of_the_user(tmp_path: Path) -> None:
    config = place(tmp_path, 0o600)
    cluster = RbdCluster("ceph", config)
    assert cluster.key() == b"AQ=="
    config.keyring_file.write_text('[client.admin]\n\tkey = AQ1=\n[client.brickyard]\n\tkey = AQ2=\n\tcaps mon = "x"\n')
    assert cluster.key() == b"AQ2="
    config.keyring_file.write_text("[client.admin]\n\tkey = AQ1=\n")
    with pytest.raises(ClusterDenied):
        cluster.key()


def test_monitors_by_the_messenger_that_they_speak_where_they_are() -> None:
    both = [{"type": "v2", "addr": "192.0.2.1:3300", "nonce": 0}, {"type": "v1", "addr": "192.0.2.1:6789", "nonce": 0}]
    told = {"fsid": "f", "mons": [{"addr": "192.0.2.1:6789/0", "public_addrs": {"addrvec": both}}]}
    assert monitors_of(told) == Monitors("f", (("192.0.2.1", 6789),), "v1")
    only = [{"type": "v2", "addr": "[2001:db8::1]:3300", "nonce": 0}]
    told = {"fsid": "f", "mons": [{"addr": "[2001:db8::1]:3300/0", "public_addrs": {"addrvec": only}}]}
    assert monitors_of(told) == Monitors("f", (("2001:db8::1", 3300),), "v2")
    assert monitors_of({"fsid": "f", "mons": [{"addr": "192.0.2.1:6789/0"}]}).messenger == "v1"
