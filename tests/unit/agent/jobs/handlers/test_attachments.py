"""Sets of attachments of volumes of other hosts, with connectors that a test steers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.backends.errors import OnlyInCluster
from agent.backends.opening import opened
from agent.base.ids import new_id
from agent.connectors.base import RemoteDevice
from agent.jobs import desired, exports, remote
from agent.wire.jobs import (
    AttachmentApply,
    Connection,
    Generation,
    Portal,
    VolumeCreate,
    VolumeRelease,
    WantedAttachment,
)
from tests.unit.agent.backends.test_rbd_config import place as rbd_place
from tests.unit.agent.jobs.handlers.onehost import MIB, Host

VOLUME, ONE = new_id(), new_id()
CONNECTION = Connection(
    protocol="nvme-tcp", target=f"nqn.2026-01.io.brickyard:{VOLUME}", identity=f"uuid.{VOLUME}", size_bytes=MIB,
    portals=(Portal(address="10.0.0.1", port=4420),), nsid=1,
)  # fmt: skip


async def test_a_changed_mode_ends_the_device_once(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    async def attach(row: Any, *_: Any) -> tuple[RemoteDevice, str]:
        done.append(f"attach {row.mode}")
        found = RemoteDevice("nvme0n1", MIB, 7, False, ("nvme0",))
        return found, found.device

    async def detach(row: Any, connection: Connection, *, shared: bool, force: bool = False) -> None:
        done.append("detach")

    monkeypatch.setattr(remote, "attach", attach)
    monkeypatch.setattr(remote, "detach", detach)
    for sequence, mode in enumerate(("rw", "ro", "ro"), start=1):
        wanted = WantedAttachment.model_validate({"attachment_id": ONE, "mode": mode})
        generation = Generation(incarnation=1, sequence=sequence)
        args = AttachmentApply(
            backend="files", volume_id=VOLUME, generation=generation, wanted=(wanted,), connection=CONNECTION
        )
        await host.do(args)
    assert done == ["attach rw", "detach", "attach ro", "attach ro"]


async def test_of_a_volume_that_is_let_go_no_generation_is_kept(host: Host) -> None:
    await host.do(VolumeCreate(backend="files", volume_id=VOLUME, size_bytes=MIB))
    newer, older = (Generation(incarnation=1, sequence=sequence) for sequence in (2, 1))
    await host.journal.write(partial(desired.decide, wish=desired.Wish(VOLUME, "files", newer)))
    await host.journal.write(partial(exports.decide, wish=exports.Wish(VOLUME, "files", newer)))
    await host.do(VolumeRelease(backend="files", volume_id=VOLUME))
    await host.journal.write(partial(desired.decide, wish=desired.Wish(VOLUME, "files", older)))
    await host.journal.write(partial(exports.decide, wish=exports.Wish(VOLUME, "files", older)))


async def test_no_device_is_made_of_a_volume_in_a_cluster(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "ceph"
    folder.mkdir()
    host.services = replace(host.services, backends={"ceph": opened("ceph", rbd_place(folder, 0o600))})
    volume, generation = new_id(), Generation(incarnation=1, sequence=1)
    wanted = (WantedAttachment(attachment_id=new_id(), mode="rw"),)
    with pytest.raises(OnlyInCluster) as caught:
        await host.do(AttachmentApply(volume_id=volume, backend="ceph", generation=generation, wanted=wanted))
    assert f"volumes/byv-{volume}" in caught.value.remedy
    assert await host.journal.read(desired.all_rows) == []
    await host.do(AttachmentApply(volume_id=volume, backend="ceph", generation=generation, wanted=()))
