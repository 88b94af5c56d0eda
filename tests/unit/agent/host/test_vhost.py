"""Endpoints of vhost-scsi from a tree as configfs has it: ours, half made, and those of others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.host import lio
from agent.targets.base import Consumer
from agent.targets.config import Portals
from agent.targets.errors import AlwaysWritable
from agent.targets.lio import LioTarget, VhostTarget
from agent.wire.jobs import LOCAL_GUESTS
from tests.unit.agent.host.test_scsi import link, put

VOLUME = "5bcce707-e54e-4682-8396-47afe6045bb7"
OTHER = "11111111-2222-4333-8444-555555555555"


def endpoint(root: Path, volume: str = VOLUME, *, nexus: bool = True) -> Path:
    """A whole one, over /dev/loop3; its portal group."""
    store, group = root / "core" / lio.HBA / volume, lio.folder(volume, "vhost", root) / "tpgt_1"
    put(store / "udev_path", "/dev/loop3")
    link(group / "lun/lun_0/brickyard", store)
    if nexus:
        put(group / "nexus", lio.nexus_of(volume))
    return group


def test_a_name_is_one_that_libvirt_and_targetcli_take() -> None:
    names = {lio.name_of(VOLUME, "vhost"), lio.name_of(OTHER, "vhost"), lio.nexus_of(VOLUME), lio.nexus_of(OTHER)}
    assert len(names) == 4
    assert all(re.fullmatch(r"naa\.5[0-9a-f]{15}", name) for name in names)
    assert lio.name_of(VOLUME, "vhost") == lio.name_of(VOLUME, "vhost")


def test_what_is_listed_is_what_configfs_has(tmp_path: Path) -> None:
    assert lio.targets(tmp_path, "vhost") == ()
    endpoint(tmp_path)
    put(tmp_path / "core" / lio.HBA / OTHER / "udev_path", "/dev/loop4")
    (tmp_path / "vhost/naa.5001405000000000/tpgt_1").mkdir(parents=True)
    (only,) = lio.targets(tmp_path, "vhost")
    assert only == lio.LioTarget(VOLUME, lio.name_of(VOLUME, "vhost"), "/dev/loop3", True, (), ())
    assert lio.target(VOLUME, tmp_path) is None, "the device is offered by vhost alone"
    assert lio.targets(tmp_path) == ()
    offered = VhostTarget(tmp_path).offered()
    assert offered[VOLUME].targets == {LOCAL_GUESTS: only.target}
    assert (offered.keys(), offered[VOLUME].ready, offered[VOLUME].connected) == ({VOLUME}, True, None)
    assert LioTarget(Portals(), root=tmp_path).offered() == {}


def test_half_made_is_there_and_not_ready(tmp_path: Path) -> None:
    group = endpoint(tmp_path, nexus=False)
    assert [one.ready for one in lio.targets(tmp_path, "vhost")] == [False]
    put(group / "nexus", lio.nexus_of(VOLUME))
    (group / "lun/lun_0/brickyard").unlink()
    assert [one.ready for one in lio.targets(tmp_path, "vhost")] == [False]
    assert not VhostTarget(tmp_path).offered()[VOLUME].ready


def test_an_endpoint_of_that_name_with_another_device_is_not_ours(tmp_path: Path) -> None:
    group = lio.folder(VOLUME, "vhost", tmp_path) / "tpgt_1"
    put(tmp_path / "core/iblock_0/disk/udev_path", "/dev/sdz")
    link(group / "lun/lun_0/abc", tmp_path / "core/iblock_0/disk")
    put(tmp_path / "core" / lio.HBA / VOLUME / "udev_path", "/dev/loop3")
    assert not lio.stands(VOLUME, "vhost", tmp_path)
    assert lio.targets(tmp_path, "vhost") == ()


def test_the_module_shows_itself_by_its_device(tmp_path: Path) -> None:
    assert not lio.has_vhost(tmp_path)
    (tmp_path / "class/misc/vhost-scsi").mkdir(parents=True)
    assert lio.has_vhost(tmp_path)


async def test_read_only_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(AlwaysWritable, match="by vhost"):
        await VhostTarget(tmp_path).apply(VOLUME, tmp_path / "none", [Consumer(OTHER, LOCAL_GUESTS, "ro")])
