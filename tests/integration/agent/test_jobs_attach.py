"""Attach, extend and detach on a real agent with its daemons: killed in between, refused when late, nothing left."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.base.errors import BrickyardError
from agent.base.ids import new_id
from agent.host import sysfs
from agent.wire.jobs import (
    AttachmentApply,
    Generation,
    LuksFormat,
    SnapshotCreate,
    SnapshotDelete,
    VolumeClone,
    VolumeCreate,
    VolumeDelete,
    VolumeExtend,
    WantedAttachment,
    WireSecret,
)
from tests.integration.agent.agent_process import AgentProcess, Site, finish, persist

MIB = 1 << 20
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
    ),
]
SECRET = WireSecret.of("passphrase", b"attach-canary")


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    before = {loop.name for loop in sysfs.loop_devices()}
    yield made
    assert {loop.name for loop in sysfs.loop_devices()} <= before | others(made)
    made.remove()


def others(site: Site) -> set[str]:
    return {loop.name for loop in sysfs.loop_devices() if not loop.backing_file.startswith(str(site.folder))}


@pytest.fixture
async def agent(site: Site) -> AsyncIterator[AgentProcess]:
    made = AgentProcess(site)
    await made.start()
    yield made
    await made.kill()


class Volume:
    """A volume of one agent and the generations of its attachments."""

    def __init__(self, encryption: LuksFormat | None = None) -> None:
        self.id, self.sequence, self.encryption = new_id(), 0, encryption
        self.secrets = {"volume": SECRET} if encryption else {}

    def create(self) -> VolumeCreate:
        return VolumeCreate(backend="files", volume_id=self.id, size_bytes=4 * MIB, encryption=self.encryption)

    def apply(self, *wanted: str, mode: str = "rw") -> AttachmentApply:
        self.sequence += 1
        return AttachmentApply(
            backend="files", volume_id=self.id, encryption=self.encryption,
            generation=Generation(incarnation=1, sequence=self.sequence),
            wanted=tuple(WantedAttachment.model_validate({"attachment_id": one, "mode": mode}) for one in wanted),
        )  # fmt: skip


def loops(agent: AgentProcess) -> list[str]:
    return [loop.name for loop in sysfs.loop_devices() if loop.backing_file.startswith(str(agent.volumes))]


async def test_attach_extend_detach_and_the_refusals(agent: AgentProcess) -> None:
    volume, attachment = Volume(), new_id()
    async with agent.client() as client:
        assert (await finish(client, "a/make/1", 1, volume.create())).state == "done"
        status = await finish(client, "b/attach/1", 1, volume.apply(attachment))
        assert status.state == "done", status
        assert status.result is not None
        device = status.result["attached"][0]
        assert device["device"].startswith("/dev/loop")
        assert [(row.state, row.device) for row in await client.attachments()] == [("attached", device["device"])]
        again = await finish(client, "b/attach/2", 1, volume.apply(attachment))
        assert again.result is not None
        assert again.result["attached"] == [device]

        removed = await finish(client, "c/remove/1", 1, VolumeDelete(backend="files", volume_id=volume.id))
        assert removed.error is not None
        assert (removed.error.code, removed.error.status) == ("volume.in-use", 409)
        assert attachment in removed.error.message
        assert device["device"] in removed.error.message

        grown = await finish(
            client, "d/grow/1", 1, VolumeExtend(backend="files", volume_id=volume.id, size_bytes=8 * MIB)
        )
        assert grown.state == "done", grown
        size = Path(f"/sys/block/{device['device'].removeprefix('/dev/')}/size").read_text()
        assert int(size) * 512 == 8 * MIB

        late = volume.apply(attachment).model_copy(update={"generation": Generation(incarnation=1, sequence=1)})
        refused = await finish(client, "e/attach/1", 1, late)
        assert refused.error is not None
        assert refused.error.code == "stale-generation"

        assert (await finish(client, "f/detach/1", 1, volume.apply())).state == "done"
        assert loops(agent) == []
        assert await client.attachments() == []
        assert (await finish(client, "f/detach/2", 1, volume.apply())).state == "done"
        removed = await finish(client, "g/remove/1", 1, VolumeDelete(backend="files", volume_id=volume.id))
        assert removed.state == "done"


async def test_another_mode_means_another_device(agent: AgentProcess) -> None:
    volume, attachment = Volume(), new_id()
    async with agent.client() as client:
        await finish(client, "a/make/1", 1, volume.create())
        assert (await finish(client, "b/attach/1", 1, volume.apply(attachment))).state == "done"
        status = await finish(client, "b/attach/2", 1, volume.apply(attachment, mode="ro"))
        assert status.state == "done", status
        (name,) = loops(agent)
        assert Path(f"/sys/block/{name}/ro").read_text().strip() == "1"
        assert (await finish(client, "c/detach/1", 1, volume.apply())).state == "done"
        assert loops(agent) == []


@pytest.mark.kill
@pytest.mark.parametrize("point", ["agent.attachment.decided", "agent.attachment.attached", "agent.job.effect-done"])
async def test_killed_while_attaching(agent: AgentProcess, point: str) -> None:
    volume, attachment = Volume(), new_id()
    async with agent.client() as client:
        await finish(client, "a/make/1", 1, volume.create())
    await agent.stop()
    status = await persist(agent, "b/attach/1", volume.apply(attachment), [f"testing.fault={point}"])
    assert status.state == "done", status
    assert len(loops(agent)) == 1
    async with agent.client() as client:
        assert [row.state for row in await client.attachments()] == ["attached"]
    await agent.stop()
    other = "agent.attachment.detached" if "attached" in point else point
    status = await persist(agent, "c/detach/1", volume.apply(), [f"testing.fault={other}"])
    assert status.state == "done", status
    assert loops(agent) == []
    async with agent.client() as client:
        assert await client.attachments() == []


async def test_an_encrypted_one_needs_its_secret_to_attach_and_none_to_detach(agent: AgentProcess) -> None:
    volume, attachment = Volume(LuksFormat()), new_id()
    async with agent.client() as client:
        made = await finish(client, "a/make/1", 1, volume.create(), **volume.secrets)
        assert made.state == "done", made
        with pytest.raises(BrickyardError) as caught:
            await finish(client, "b/attach/1", 1, volume.apply(attachment))
        assert caught.value.code == "job.secret-missing"
        status = await finish(client, "b/attach/2", 1, volume.apply(attachment), **volume.secrets)
        assert status.state == "done", status
        assert status.result is not None
        device = status.result["attached"][0]
        assert device["raw"] == device["device"].startswith("/dev/loop")
        grow = VolumeExtend(backend="files", volume_id=volume.id, size_bytes=8 * MIB, encrypted=True)
        grown = await finish(client, "c/grow/1", 1, grow, **volume.secrets)
        assert grown.state == "done", grown
        assert grown.result is not None
        assert grown.result["usable_bytes"] == 8 * MIB
        assert (await finish(client, "d/detach/1", 1, volume.apply())).state == "done"
        assert loops(agent) == []


async def test_a_device_that_vanished_is_told_as_an_issue(agent: AgentProcess) -> None:
    volume, attachment = Volume(), new_id()
    async with agent.client() as client:
        await finish(client, "a/make/1", 1, volume.create())
        assert (await finish(client, "b/attach/1", 1, volume.apply(attachment))).state == "done"
        (name,) = loops(agent)
        process = await asyncio.create_subprocess_exec("losetup", "-d", f"/dev/{name}")
        assert await process.wait() == 0
        assert [row.state for row in await client.attachments()] == ["missing"]
        assert [(issue.code, issue.resource) for issue in await client.issues()] == [("attachment.missing", attachment)]
        assert (await finish(client, "b/attach/2", 1, volume.apply(attachment))).state == "done"
        assert await client.issues() == []
        assert (await finish(client, "c/detach/1", 1, volume.apply())).state == "done"


@pytest.mark.parametrize("how", ["deleted", "replaced", "moved"])
async def test_a_file_that_somebody_took_from_below_its_device(agent: AgentProcess, how: str) -> None:
    """The device stays the old file's, is never handed out as another one's, and is detached."""
    volume, attachment = Volume(), new_id()
    path = agent.volumes / "volumes" / volume.id
    async with agent.client() as client:
        await finish(client, "a/make/1", 1, volume.create())
        made = await finish(client, "b/attach/1", 1, volume.apply(attachment))
        assert made.result is not None
        device = Path(made.result["attached"][0]["device"])
        owner = path.stat()
        if how == "deleted":
            path.unlink()
        else:
            if how == "moved":
                path.rename(path.with_suffix(".old"))
            new = path.with_suffix(".new")
            new.write_bytes(b"another" + bytes(4 * MIB - 7))
            os.chown(new, owner.st_uid, owner.st_gid)
            new.rename(path)
        if how != "deleted":
            refused = await finish(client, "b/attach/2", 1, volume.apply(attachment))
            assert refused.error is not None
            assert refused.error.code in {"attachment.mismatch", "device.foreign"}, refused.error
        assert device.read_bytes()[:7] == bytes(7)
        (bound,) = (loop for loop in sysfs.loop_devices() if loop.name == device.name)
        assert (await finish(client, "c/detach/1", 1, volume.apply())).state == "done"
        # The number may be another test's by now; its appearance is never used twice.
        left = [loop for loop in sysfs.loop_devices() if (loop.name, loop.diskseq) == (bound.name, bound.diskseq)]
        assert not left, "its device is still there"
        if how != "deleted":
            again = await finish(client, "d/attach/1", 1, volume.apply(attachment))
            assert again.result is not None, again
            assert Path(again.result["attached"][0]["device"]).read_bytes()[:7] == b"another"
            assert (await finish(client, "e/detach/1", 1, volume.apply())).state == "done"


async def test_what_is_written_meanwhile_is_no_source_of_a_copy(agent: AgentProcess) -> None:
    """Where data can not be shared a copy takes its time; of a volume in use it would be of no one moment."""
    volume, attachment = Volume(), new_id()
    async with agent.client() as client:
        if (await client.pools())[0].reflink:
            pytest.skip("this file system keeps a moment of a volume in use")
        await finish(client, "a/make/1", 1, volume.create())
        assert (await finish(client, "b/attach/1", 1, volume.apply(attachment))).state == "done"
        snapshot = SnapshotCreate(backend="files", volume_id=volume.id, snapshot_id=new_id())
        clone = VolumeClone(backend="files", volume_id=new_id(), size_bytes=4 * MIB, source_volume_id=volume.id)
        for key, asked in (("c/snapshot", snapshot), ("d/clone", clone)):
            refused = await finish(client, f"{key}/1", 1, asked)
            assert refused.error is not None
            assert (refused.error.code, attachment in refused.error.message) == ("volume.written", True)
        assert (await finish(client, "b/attach/2", 1, volume.apply(attachment, mode="ro"))).state == "done"
        assert (await finish(client, "c/snapshot/2", 1, snapshot)).state == "done"
        assert (await finish(client, "d/clone/2", 1, clone)).state == "done"
        gone = SnapshotDelete(backend="files", snapshot_id=snapshot.snapshot_id)
        assert (await finish(client, "e/unsnap/1", 1, gone)).state == "done"
        assert (await finish(client, "f/detach/1", 1, volume.apply())).state == "done"


@pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup")
async def test_a_header_that_a_guest_has_changed_is_judged_before_root_opens_it(agent: AgentProcess) -> None:
    """Whoever had the raw device could ask for hours of work or gigabytes of memory in a tool that runs as root."""
    volume, attachment = Volume(LuksFormat(format="luks1")), new_id()
    async with agent.client() as client:
        assert (await finish(client, "a/make/1", 1, volume.create(), **volume.secrets)).state == "done"
        path = agent.volumes / "volumes" / volume.id
        with path.open("r+b") as file:
            file.seek(208 + 4)
            file.write(b"\xff\xff\xff\xff")
        status = await finish(client, "b/attach/1", 1, volume.apply(attachment), **volume.secrets)
        assert status.error is not None
        assert status.error.code == "image.luks-kdf-limit"
        assert loops(agent) == []
        assert (await finish(client, "c/detach/1", 1, volume.apply())).state == "done"
