"""Volumes between hosts, for people: what the check says, and the way that is drawn, from trees like the kernel's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agent.diagnostics import live
from agent.diagnostics.checks import remote
from agent.diagnostics.place import Place
from agent.host import lio
from agent.jobs import desired
from agent.wire.jobs import Connection, Generation, Portal
from tests.unit.agent.diagnostics import support
from tests.unit.agent.host import test_scsi as kernel
from tests.unit.agent.host import test_vhost as vhost
from tests.unit.agent.host.test_rdma import soft

CONNECTION = Connection(
    protocol="iscsi", target=kernel.TARGET, portals=(Portal(address="10.0.0.1", port=3260),), lun=0,
    identity=kernel.IDENTITY, serial=kernel.SERIAL, size_bytes=1 << 20,
)  # fmt: skip
LISTENERS = (
    "Num RefCount Protocol Flags Type St Inode Path\n"
    "0: 00000002 00000000 00010000 0001 01 1 @ISCSIADM_ABSTRACT_NAMESPACE\n"
)


def place_at(tmp_path: Path, **more: object) -> Place:
    return replace(support.made(tmp_path / "agent"), root=tmp_path / "root", **more)  # type: ignore[arg-type]


def said(place: Place) -> list[tuple[str, str]]:
    found = list(remote.check(place))
    assert all(finding.remedy for finding in found if finding.state in {"warning", "bad"})
    return [(finding.state, finding.message) for finding in found]


def test_a_host_that_does_neither_is_told_how(tmp_path: Path) -> None:
    states = said(place_at(tmp_path))
    assert [state for state, _ in states] == ["skipped", "skipped", "skipped"]
    assert "apt-get install open-iscsi" in states[1][1]


def test_a_target_that_is_not_loaded_and_an_initiator_without_a_name(tmp_path: Path) -> None:
    place = place_at(tmp_path, targets=frozenset({"lio"}))
    kernel.put(place.root / "proc/net/unix", LISTENERS)
    states = said(place)
    assert [state for state, _ in states] == ["bad", "bad", "warning", "skipped"]
    assert "multipathd does not run" in states[2][1]


def test_a_host_that_has_a_keyring_of_a_cluster(tmp_path: Path) -> None:
    keyring = tmp_path / "keyring"
    place = place_at(tmp_path, keyring=keyring)
    keyring.touch(0o640)
    assert ("bad", f"There is {keyring}, but the kernel's client of Ceph is not loaded.") in said(place)
    (place.root / "sys/bus/rbd").mkdir(parents=True)
    assert ("ok", f"Volumes in Ceph are mapped with {keyring}.") in said(place)
    keyring.chmod(0o644)
    assert ("bad", f"Everybody on this host can read {keyring}.") in said(place)


def test_who_uses_volumes_of_others_without_our_udev_rules_is_told(tmp_path: Path) -> None:
    place = place_at(tmp_path)
    kernel.put(place.root / "proc/net/unix", LISTENERS)
    kernel.put(place.root / "run/udev/control", "")
    assert "udev rules of Brickyard are missing" in said(place)[-1][1]
    kernel.put(place.root / "etc/udev/rules.d/12-brickyard.rules", "")
    assert "udev" not in said(place)[-1][1]


def test_a_broken_target_and_a_broken_session_are_named(tmp_path: Path) -> None:
    place = place_at(tmp_path, targets=frozenset({"lio"}))
    kernel.put(place.root / "proc/net/unix", LISTENERS)
    kernel.put(place.root / "etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.2026-01.org.x:h")
    (place.root / "sys/kernel/config/target/iscsi" / kernel.TARGET / "tpgt_1").mkdir(parents=True)
    kernel.session(place.root / "sys", 1, state="FAILED")
    told = " ".join(message for _, message in said(place))
    assert f"target of volume {kernel.SERIAL} takes no log-ins" in told
    assert f"session with {kernel.TARGET} at 10.0.0.1:3260 is failed" in told
    assert "as iqn.2026-01.org.x:h" in told


def test_vhost_is_told_and_drawn(tmp_path: Path) -> None:
    place = place_at(tmp_path, targets=frozenset({"vhost"}))
    assert ("bad", "The kernel's module vhost_scsi is not loaded: no guest gets a volume.") in said(place)
    (place.root / "sys/class/misc/vhost-scsi").mkdir(parents=True)
    root = place.root / "sys/kernel/config/target"
    group = vhost.endpoint(root, nexus=False)
    name = lio.name_of(vhost.VOLUME, "vhost")
    assert ("warning", f"The vhost endpoint {name} of volume {vhost.VOLUME} is half made.") in said(place)
    kernel.put(group / "nexus", lio.nexus_of(vhost.VOLUME))
    assert ("ok", "Guests of this host can have volumes by vhost.") in said(place)
    drawn = list(live.lines(live.explain(place, vhost.VOLUME)))
    assert drawn[1:] == [f"  target {name}  (for guests of this host)", "    device /dev/loop3  (LUN 0)"]


def test_an_attachment_from_another_host_is_attached_or_missing_as_the_kernel_says(tmp_path: Path) -> None:
    place = place_at(tmp_path)
    row = desired.Row(
        kernel.SERIAL, support.VOLUME, "files", Generation(incarnation=1, sequence=1), device="/dev/sda",
        raw_device="/dev/sda", identifiers={"connection": CONNECTION.model_dump(mode="json")}, boot_id="b",
    )  # fmt: skip
    support.in_journal(place, lambda db: desired.put(db, [row]))
    (missing,) = live.attachments(place)
    assert (missing["state"], missing["protocol"]) == ("missing", "iscsi")
    kernel.session(place.root / "sys", 4)
    (there,) = live.attachments(place)
    assert there["state"] == "attached"
    drawn = "\n".join(live.lines(live.explain(place, support.VOLUME)))
    assert "session 4  (10.0.0.1:3260, logged_in)" in drawn
    assert "path /dev/sda" in drawn
    assert kernel.IDENTITY in drawn


def test_a_host_that_offers_by_rdma_is_told_of_its_devices(tmp_path: Path) -> None:
    place = place_at(tmp_path, targets=frozenset({"nvmet_rdma"}))
    (place.root / "sys/kernel/config/nvmet").mkdir(parents=True)
    assert ("bad", "There is no RDMA device for offering volumes by NVMe.") in said(place)
    (place.root / "sys/module/ib_iser").mkdir(parents=True)
    soft(place.root / "sys", "1: DOWN")
    assert ("warning", "Port 1 of the RDMA device rxe0 (eth1, eth1.5) is not active.") in said(place)
    soft(place.root / "sys")
    active = "port 1 of the RDMA device rxe0 (eth1, eth1.5) is active."
    assert ("ok", f"For offering volumes by NVMe and using them by iSER: {active}") in said(place)
