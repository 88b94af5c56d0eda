"""Encrypted volumes through dm-crypt and udevd on a real agent: bytes, growth, refusals, kills, nothing left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.host import sysfs, udev
from agent.wire.client import AgentClient
from agent.wire.jobs import LuksFormat, VolumeExtend, WireSecret, request_for
from tests.integration.agent.agent_process import AgentProcess, Site, finish, persist
from tests.integration.agent.test_jobs_attach import MIB, Volume, loops

CANARY = b"clear-canary-of-the-guest." * 100
FORMATS = pytest.mark.parametrize("version", ["luks1", "luks2"])


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.remove()


@pytest.fixture
async def agent(site: Site) -> AsyncIterator[AgentProcess]:
    made = AgentProcess(site)
    await made.start()
    yield made
    await made.kill()


def mapped(volume_attachment: str) -> sysfs.MapperDevice | None:
    return sysfs.mapper_device(f"brickyard-{volume_attachment}")


async def made(client: AgentClient, version: str) -> Volume:
    volume = Volume(LuksFormat.model_validate({"format": version}))
    status = await finish(client, f"{volume.id}/make/1", 1, volume.create(), **volume.secrets)
    assert status.state == "done", status
    return volume


async def attached(client: AgentClient, volume: Volume, attachment: str, *, mode: str = "rw") -> Path:
    """The clear device; everything that a user of it relies on is there when the job has ended."""
    key = f"{attachment}/attach-{mode}/1"
    status = await finish(client, key, 1, volume.apply(attachment, mode=mode), **volume.secrets)
    assert status.state == "done", status
    assert status.result is not None
    device = status.result["attached"][0]
    assert not device["raw"]
    path = Path(device["device"])
    assert path == Path(f"/dev/mapper/brickyard-{attachment}")
    found = mapped(attachment)
    assert found is not None
    assert path.resolve() == Path("/dev") / found.name
    assert found.below == (Path(device["raw_device"]).name,)
    return path


async def detached(client: AgentClient, volume: Volume, agent: AgentProcess) -> None:
    status = await finish(client, f"{volume.id}/detach-{volume.sequence}/1", 1, volume.apply())
    assert status.state == "done", status
    assert loops(agent) == []
    assert await client.attachments() == []


def grow(volume: Volume, size: int) -> VolumeExtend:
    return VolumeExtend(backend="files", volume_id=volume.id, size_bytes=size, encrypted=True)


@pytest.mark.smoke
@FORMATS
async def test_what_is_written_clear_lies_encrypted_in_the_file(agent: AgentProcess, version: str) -> None:
    async with agent.client() as client:
        volume, attachment = await made(client, version), new_id()
        device = await attached(client, volume, attachment)
        places = (0, 1 * MIB + 512, 4 * MIB - len(CANARY))
        with device.open("r+b", buffering=0) as out:
            assert out.seek(0, os.SEEK_END) == 4 * MIB
            for place in places:
                out.seek(place)
                assert out.write(CANARY) == len(CANARY)
        await detached(client, volume, agent)
        file = agent.volumes / "volumes" / volume.id
        assert CANARY[:26] not in file.read_bytes()

        again = new_id()
        device = await attached(client, volume, again, mode="ro")
        with device.open("rb") as clear:
            for place in places:
                clear.seek(place)
                assert clear.read(len(CANARY)) == CANARY
        found = mapped(again)
        assert found is not None
        assert Path(f"/sys/block/{found.name}/ro").read_text().strip() == "1"
        with pytest.raises(OSError, match="not permitted"), device.open("r+b", buffering=0) as out:
            out.write(bytes(512))
        await detached(client, volume, agent)


@FORMATS
async def test_a_mounted_file_system_grows_and_is_never_taken_away(
    agent: AgentProcess, version: str, tmp_path: Path
) -> None:
    place = tmp_path / "mnt"
    place.mkdir()
    async with agent.client() as client:
        volume, attachment = await made(client, version), new_id()
        device = await attached(client, volume, attachment)
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
        subprocess.run(["mount", device, place], check=True)
        try:
            (place / "kept").write_bytes(CANARY)
            status = await finish(client, "grow/1/1", 1, grow(volume, 32 * MIB), **volume.secrets)
            assert status.state == "done", status
            found = mapped(attachment)
            assert found is not None
            assert found.size == 32 * MIB
            subprocess.run(["resize2fs", device], check=True, capture_output=True)
            assert os.statvfs(place).f_blocks * os.statvfs(place).f_frsize > 24 * MIB
            refused = await finish(client, "detach/1/1", 1, volume.apply())
            assert refused.error is not None
            assert f"mounted on {place}" in refused.error.message
            (place / "still").write_bytes(CANARY)
        finally:
            subprocess.run(["umount", place], check=True)
        await detached(client, volume, agent)
        device = await attached(client, volume, new_id())
        subprocess.run(["e2fsck", "-f", "-n", device], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "ro", device, place], check=True)
        try:
            assert (place / "kept").read_bytes() == (place / "still").read_bytes() == CANARY
        finally:
            subprocess.run(["umount", place], check=True)
        await detached(client, volume, agent)


@FORMATS
async def test_a_wrong_key_leaves_nothing(agent: AgentProcess, version: str) -> None:
    async with agent.client() as client:
        volume, attachment = await made(client, version), new_id()
        wrong = {"volume": WireSecret.of("passphrase", b"not-the-one")}
        status = await finish(client, "wrong/1/1", 1, volume.apply(attachment), **wrong)
        assert status.error is not None
        assert status.error.code == "device.wrong-key"
        assert loops(agent) == []
        assert mapped(attachment) is None
        await attached(client, volume, attachment)
        await detached(client, volume, agent)


async def test_an_open_device_is_not_taken_away(agent: AgentProcess) -> None:
    async with agent.client() as client:
        volume, attachment = await made(client, "luks1"), new_id()
        device = await attached(client, volume, attachment)
        with device.open("r+b", buffering=0) as holder:
            refused = await finish(client, "detach/1/1", 1, volume.apply())
            assert refused.error is not None
            assert refused.error.code == "attachment.left-over"
            assert str(device) in refused.error.message
            holder.seek(MIB)
            assert holder.write(CANARY[:512]) == 512
        await detached(client, volume, agent)


async def test_a_mapping_that_somebody_else_closed_comes_back(agent: AgentProcess) -> None:
    async with agent.client() as client:
        volume, attachment = await made(client, "luks1"), new_id()
        device = await attached(client, volume, attachment)
        subprocess.run(["cryptsetup", "close", device.name], check=True)
        assert [row.state for row in await client.attachments()] == ["needs-secret"]
        status = await finish(client, "again/1/1", 1, volume.apply(attachment), **volume.secrets)
        assert status.state == "done", status
        assert mapped(attachment) is not None
        assert [row.state for row in await client.attachments()] == ["attached"]
        subprocess.run(["cryptsetup", "close", device.name], check=True)
        await detached(client, volume, agent)


@pytest.mark.kill
@pytest.mark.parametrize("point", ["agent.attachment.decided", "agent.attachment.attached", "agent.job.effect-done"])
async def test_killed_while_attaching_and_detaching(agent: AgentProcess, point: str) -> None:
    attachment = new_id()
    async with agent.client() as client:
        volume = await made(client, "luks2")
    await agent.stop()
    status = await persist(agent, "b/attach/1", volume.apply(attachment), [f"testing.fault={point}"], **volume.secrets)
    assert status.state == "done", status
    assert len(loops(agent)) == 1
    assert mapped(attachment) is not None
    await agent.stop()
    other = "agent.attachment.detached" if "attached" in point else point
    status = await persist(agent, "c/detach/1", volume.apply(), [f"testing.fault={other}"])
    assert status.state == "done", status
    assert loops(agent) == []
    assert mapped(attachment) is None


@pytest.mark.kill
async def test_killed_between_the_loop_device_and_its_mapping(agent: AgentProcess) -> None:
    """The daemon that runs cryptsetup dies with its agent, or ends its work: either way the next try comes through."""
    attachment = new_id()
    async with agent.client() as client:
        volume = await made(client, "luks2")
        async with udev.subscribed() as events:
            wish = volume.apply(attachment)
            await client.post_job(request_for("b/attach/1", 1, wish, volume.secrets), wait_s=0)
            assert await events.wait(lambda event: event.name.startswith("loop"), 60) is not None
            await agent.kill()
    await agent.start()
    async with agent.client() as client:
        status = await finish(client, "b/attach/1", 1, wish, **volume.secrets)
        assert status.state == "done", status
        device = await attached(client, volume, attachment)
        assert len(loops(agent)) == 1
        with device.open("rb") as clear:
            assert clear.seek(0, os.SEEK_END) == 4 * MIB
        await detached(client, volume, agent)


@pytest.mark.kill
async def test_killed_while_growing(agent: AgentProcess) -> None:
    attachment = new_id()
    async with agent.client() as client:
        volume = await made(client, "luks2")
        await attached(client, volume, attachment)
    await agent.stop()
    fault = ["testing.fault=agent.job.effect-done"]
    status = await persist(agent, "c/grow/1", grow(volume, 12 * MIB), fault, **volume.secrets)
    assert status.state == "done", status
    found = mapped(attachment)
    assert found is not None
    assert found.size == 12 * MIB
    async with agent.client() as client:
        await detached(client, volume, agent)


async def test_many_at_once_each_with_its_own_key(agent: AgentProcess) -> None:
    async with agent.client() as client:
        volumes = [await made(client, "luks2") for _ in range(4)]
        ids = [new_id() for _ in volumes]
        devices = await asyncio.gather(
            *(attached(client, volume, one) for volume, one in zip(volumes, ids, strict=True))
        )
        for number, device in enumerate(devices):
            with device.open("r+b", buffering=0) as out:
                out.write(bytes([number + 1]) * 4096)
        for number, device in enumerate(devices):
            with contextlib.closing(device.open("rb")) as clear:
                assert clear.read(4096) == bytes([number + 1]) * 4096
        ended = await asyncio.gather(*(finish(client, f"{volume.id}/off/1", 1, volume.apply()) for volume in volumes))
        assert [status.state for status in ended] == ["done"] * 4
        assert loops(agent) == []
