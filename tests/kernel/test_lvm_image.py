"""An encrypted image becomes an encrypted volume on LVM.

Its header is made by qemu-img, which counts the time of its own code: of user-mode Linux it hears that it took none.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.wire.jobs import ImageSource, LuksFormat, VolumeDelete, VolumeExtend, VolumeFromImage, WireSecret
from tests.integration.agent.agent_process import AgentProcess, journal_text
from tests.kernel import test_lvm_agent as usual
from tests.kernel.lvm_support import MIB
from tests.kernel.support.lvm_caller import Caller, device_of
from tests.support.images import content_of, encrypted_qcow2

MACHINE = {"stock": True}
SECRET = usual.SECRET
group, site, agent = usual.group, usual.site, usual.agent


@pytest.mark.parametrize("backend", ["thin", "thick"])
async def test_an_encrypted_image_becomes_a_volume_that_dm_crypt_opens(
    agent: AgentProcess, backend: str, tmp_path: Path
) -> None:
    image, volume, attachment = (new_id() for _ in range(3))
    content = content_of(8 * MIB)
    caller, encryption = Caller(agent, backend), LuksFormat()
    await agent.start()
    stored = agent.state / "images" / "images" / image
    stored.write_bytes(encrypted_qcow2(tmp_path, content, b"of the image"))
    stored.chmod(0o644)
    source = ImageSource(
        image_id=image, disk_format="qcow2", container_format="bare", size_bytes=stored.stat().st_size, encrypted=True
    )
    make = VolumeFromImage(backend=backend, volume_id=volume, size_bytes=16 * MIB, image=source, encryption=encryption)
    await caller.do(make, image=WireSecret.of("passphrase", b"of the image"), volume=SECRET)
    result = await caller.do(caller.apply(volume, attachment, encryption=encryption), volume=SECRET)
    device = device_of(result)
    assert device == Path(f"/dev/mapper/brickyard-{attachment}")
    with device.open("rb", buffering=0) as seen:
        assert seen.seek(0, os.SEEK_END) == 16 * MIB
        seen.seek(0)
        assert seen.read(len(content)) == content
        assert not any(seen.read(8 * MIB))
    below = Path(f"/dev/mapper/brickyard-lv-{attachment}")
    assert content[:4096] not in below.read_bytes()
    grow = VolumeExtend(backend=backend, volume_id=volume, size_bytes=24 * MIB, encrypted=True)
    await caller.do(grow, volume=SECRET)
    with device.open("rb", buffering=0) as seen:
        assert seen.seek(0, os.SEEK_END) == 24 * MIB
    await caller.do(caller.apply(volume, encryption=encryption))
    await caller.do(VolumeDelete(backend=backend, volume_id=volume))
    assert "lvm-canary" not in agent.log.read_text() + journal_text(agent)
