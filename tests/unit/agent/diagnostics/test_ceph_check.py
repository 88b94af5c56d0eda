"""What doctor says of back ends in Ceph."""

from __future__ import annotations

from pathlib import Path

from agent.diagnostics.checks import ceph
from agent.diagnostics.place import Place


def place(root: Path, **more: object) -> Place:
    told = {"host": "h", "state_dir": root, "spool_dir": root, "user": "u", "limits_file": root / "l", "root": root}
    return Place(**(told | more))  # type: ignore[arg-type]


def test_a_host_without_ceph_is_left_alone(tmp_path: Path) -> None:
    assert [one.state for one in ceph.check(place(tmp_path))] == ["skipped"]


def test_each_missing_thing_is_told_with_a_remedy_and_nothing_else(tmp_path: Path) -> None:
    conf, keyring = tmp_path / "ceph.conf", tmp_path / "keyring"
    asked = place(tmp_path, ceph={"one": (conf, keyring)})
    found = list(ceph.check(asked))
    assert {one.state for one in found} == {"bad"}
    assert all(one.remedy for one in found)
    assert len(found) == 7
    for name in ("usr/bin/rbd", "usr/bin/ceph", "usr/bin/qemu-storage-daemon"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(0o755)
    for name in ("usr/lib/x86_64-linux-gnu/qemu/block-rbd.so", "dev/fuse", "ceph.conf", "keyring"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    keyring.chmod(0o644)
    (left,) = ceph.check(asked)
    assert left.remedy == f"Run: chmod 0600 {keyring}"
    keyring.chmod(0o600)
    assert [one.state for one in ceph.check(asked)] == ["ok"]
