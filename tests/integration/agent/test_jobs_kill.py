"""kill -9 of a real agent at every fault point of a job, then a restart: each job ends, nothing is left or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.jobs import execution, runner
from agent.wire.jobs import (
    ImageSource,
    LuksFormat,
    SnapshotCreate,
    VolumeClone,
    VolumeCreate,
    VolumeDelete,
    VolumeExtend,
    VolumeFromImage,
    WireSecret,
    request_for,
)
from tests.integration.agent.agent_process import AgentProcess, Site, finish, journal_text, passed, persist

MIB = 1 << 20
POINTS = ["agent.job.journaled", "agent.job.started", "agent.job.effect-done", "agent.job.finished"]
SECRET = WireSecret.of("passphrase", b"canary-4711-canary")


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.remove()


@pytest.fixture
async def agent(site: Site) -> AsyncIterator[AgentProcess]:
    made = AgentProcess(site)
    yield made
    await made.kill()


def files(agent: AgentProcess) -> set[str]:
    return {str(path.relative_to(agent.volumes)) for path in agent.volumes.rglob("*") if path.is_file()}


@pytest.mark.kill
@pytest.mark.parametrize("point", POINTS)
async def test_create_extend_snapshot_delete(agent: AgentProcess, point: str) -> None:
    volume, snapshot, fault = new_id(), new_id(), [f"testing.fault={point}"]
    create = VolumeCreate(backend="files", volume_id=volume, size_bytes=MIB)
    assert (await persist(agent, "op-1/make/1", create, fault)).state == "done"
    assert files(agent) == {f"volumes/{volume}"}
    await agent.stop()
    extend = VolumeExtend(backend="files", volume_id=volume, size_bytes=2 * MIB)
    status = await persist(agent, "op-2/grow/1", extend, fault)
    assert (status.state, (agent.volumes / "volumes" / volume).stat().st_size) == ("done", 2 * MIB)
    await agent.stop()
    keep = SnapshotCreate(backend="files", volume_id=volume, snapshot_id=snapshot)
    assert (await persist(agent, "op-3/keep/1", keep, fault)).state == "done"
    assert files(agent) == {f"volumes/{volume}", f"snapshots/{snapshot}"}
    await agent.stop()
    remove = VolumeDelete(backend="files", volume_id=volume)
    assert (await persist(agent, "op-4/remove/1", remove, fault)).state == "done"
    assert files(agent) == {f"snapshots/{snapshot}"}
    assert not list((agent.state / "locks").iterdir())


@pytest.mark.kill
async def test_an_encrypted_volume_waits_for_its_secret(agent: AgentProcess) -> None:
    volume = new_id()
    create = VolumeCreate(backend="files", volume_id=volume, size_bytes=MIB, encryption=LuksFormat())
    await agent.start("testing.fault=agent.job.effect-done")
    request = request_for("op-1/make/1", 1, create, {"volume": SECRET})
    async with agent.client() as client:
        await asyncio.gather(client.post_job(request, 10), return_exceptions=True)
    await agent.died()
    await agent.start()
    async with agent.client() as client:
        waiting = await client.get_job("op-1/make/1")
        assert waiting.state == "needs-secret"
        status = await finish(client, "op-1/make/1", 1, create, volume=SECRET)
        assert status.state == "done"
        assert status.result is not None
        assert status.result["usable_bytes"] == MIB
        assert (agent.volumes / "volumes" / volume).read_bytes()[:4] == b"LUKS"
    assert "canary-4711" not in journal_text(agent)
    assert "canary-4711" not in agent.log.read_text()


@pytest.mark.kill
async def test_a_copy_goes_on_from_its_checkpoint(agent: AgentProcess) -> None:
    source, clone = new_id(), new_id()
    await agent.start()
    async with agent.client() as client:
        create = VolumeCreate(backend="files", volume_id=source, size_bytes=192 * MIB)
        assert (await finish(client, "op-1/make/1", 1, create)).state == "done"
    await agent.stop()
    content = os.urandom(MIB) * 192
    path = agent.volumes / "volumes" / source
    path.write_bytes(content)
    wanted = VolumeClone(backend="files", volume_id=clone, size_bytes=192 * MIB, source_volume_id=source)
    status = await persist(agent, "op-2/clone/1", wanted, ["testing.fault=agent.job.checkpointed@2"])
    assert status.state == "done"
    assert (agent.volumes / "volumes" / clone).read_bytes() == content
    assert files(agent) == {f"volumes/{source}", f"volumes/{clone}"}


@pytest.mark.kill
async def test_an_image_is_fetched_converted_and_survives_a_kill(agent: AgentProcess, site: Site) -> None:
    """From another agent's store, by way of the data port."""
    import hashlib

    from agent.wire.jobs import Checksum, ImageCommit, ImageDelete, TransferClose, TransferOpen, TransferRef
    from agent.wire.transfer import file_blocks, push

    store = AgentProcess(site, "host-b", store=True)
    image, volume = new_id(), new_id()
    content = os.urandom(MIB) * 8
    local = site.folder / "image.raw"
    local.write_bytes(content)
    try:
        await store.start()
        async with store.client() as client:
            opened = await finish(
                client, "i-1/open/1", 1, TransferOpen(image_id=image, direction="write", peer="coordinator")
            )
            assert opened.result is not None
            ref = TransferRef(host="host-b", address="127.0.0.1", port=store.data_port, name=opened.result["name"])
            fd = os.open(local, os.O_RDONLY)
            await push(ref, site.coordinator, file_blocks(fd))
            os.close(fd)
            assert (await finish(client, "i-1/close/1", 1, TransferClose(name=ref.name))).state == "done"
            commit = ImageCommit(image_id=image, disk_format="raw", container_format="bare")
            kept = await finish(client, "i-1/commit/1", 1, commit)
            assert kept.state == "done", kept
            opened = await finish(
                client, "o-1/open/1", 1, TransferOpen(image_id=image, direction="read", peer="host:host-a")
            )
            assert opened.result is not None
            source = ImageSource(
                image_id=image, disk_format="raw", container_format="bare", size_bytes=len(content),
                checksum=Checksum(algorithm="sha256", value=hashlib.sha256(content).hexdigest()),
                transfer=TransferRef(
                    host="host-b", address="127.0.0.1", port=store.data_port, name=opened.result["name"]
                ),
            )  # fmt: skip
            make = VolumeFromImage(backend="files", volume_id=volume, size_bytes=10 * MIB, image=source)
            status = await persist(agent, "op-1/make/1", make, ["testing.fault=agent.job.effect-done"])
            assert status.state == "done", status
            assert (agent.volumes / "volumes" / volume).read_bytes() == content + bytes(2 * MIB)
            assert files(agent) == {f"volumes/{volume}"}
            assert not list((agent.state / "spool").iterdir())
            wrong = make.model_copy(update={"volume_id": new_id(), "image": source.model_copy(
                update={"checksum": Checksum(algorithm="sha256", value="0" * 64)})})  # fmt: skip
            async with agent.client() as to_agent:
                refused = await finish(to_agent, "op-2/make/1", 1, wrong)
            assert refused.error is not None
            assert refused.error.code == "image.checksum"
            assert files(agent) == {f"volumes/{volume}"}
            assert (await finish(client, "i-2/delete/1", 1, ImageDelete(image_id=image))).state == "done"
            assert await client.inventory() == ([], {})
    finally:
        await store.kill()


@pytest.mark.kill
async def test_a_cancel_and_an_acknowledgement_hold_over_a_kill(agent: AgentProcess) -> None:
    create = VolumeCreate(backend="files", volume_id=new_id(), size_bytes=MIB)
    await agent.start("testing.fault=agent.job.cancel-journaled")
    async with agent.client() as client:
        await asyncio.gather(client.cancel("op-1/make/1", 1), return_exceptions=True)
    await agent.died()
    await agent.start("testing.fault=agent.job.acknowledged")
    async with agent.client() as client:
        with pytest.raises(Exception, match="cancelled before"):
            await client.post_job(request_for("op-1/make/1", 1, create))
        assert (await finish(client, "op-2/make/1", 1, create)).state == "done"
        await asyncio.gather(client.acknowledge(["op-2/make/1"]), return_exceptions=True)
    await agent.died()
    await agent.start()
    async with agent.client() as client:
        with pytest.raises(Exception, match="acknowledged before"):
            await client.post_job(request_for("op-2/make/1", 1, create))


@pytest.mark.kill
async def test_every_fault_point_of_the_engine_is_passed(agent: AgentProcess, tmp_path: Path) -> None:
    record = agent.site.folder / "passed"
    record.touch()
    record.chmod(0o666)
    await agent.start("testing.fault=agent.job.started", f"testing.fault_record={record}")
    source, clone = new_id(), new_id()
    create = VolumeCreate(backend="files", volume_id=source, size_bytes=MIB)
    async with agent.client() as client:
        await asyncio.gather(client.post_job(request_for("op-1/make/1", 1, create), 5), return_exceptions=True)
    await agent.died()
    await agent.start(f"testing.fault_record={record}")
    async with agent.client() as client:
        assert (await finish(client, "op-1/make/1", 1, create)).state == "done"
        wanted = VolumeClone(backend="files", volume_id=clone, size_bytes=MIB, source_volume_id=source)
        (agent.volumes / "volumes" / source).write_bytes(os.urandom(MIB))
        assert (await finish(client, "op-2/clone/1", 1, wanted)).state == "done"
        small = VolumeClone(backend="files", volume_id=new_id(), size_bytes=4096, source_volume_id=source)
        assert (await finish(client, "op-3/clone/1", 1, small)).state == "failed"
        await client.cancel("op-4/never/1", 1)
        await client.acknowledge(["op-1/make/1", "op-2/clone/1"])
    declared = {
        name for module in (runner, execution) for name in Path(module.__file__).read_text().split('"')
        if name.startswith("agent.job.")
    }  # fmt: skip
    assert declared <= passed(record)


def opened(volume: Path, key: bytes) -> bytes:
    """The clear content of a LUKS volume."""
    from agent.luks import header
    from agent.luks.unlock import unlock
    from agent.luks.window import whole_file

    with volume.open("rb") as file:
        window = whole_file(file.fileno())
        found = header.read(window)
        file.seek(found.details.payload_offset)
        return unlock(window, found, key).decrypt(file.read(), 0)


@pytest.mark.kill
@pytest.mark.skipif(
    shutil.which("qemu-img") is None or shutil.which("cryptsetup") is None, reason="needs qemu-img and cryptsetup"
)
async def test_a_conversion_that_was_killed_goes_on_when_its_secret_is_posted(site: Site) -> None:
    from agent.luks.model import Secret
    from tests.support.luks import verify_opens

    agent, image, volume = AgentProcess(site, store=True), new_id(), new_id()
    secret = WireSecret.of("symmetric", os.urandom(32))
    content = os.urandom(MIB) * 64
    await agent.start(f"jobs.rate_limit={48 * MIB}")
    try:
        (agent.state / "images" / "images" / image).write_bytes(content)
        (agent.state / "images" / "images" / image).chmod(0o644)
        source = ImageSource(image_id=image, disk_format="raw", container_format="bare", size_bytes=len(content))
        make = VolumeFromImage(
            backend="files", volume_id=volume, size_bytes=256 * MIB, image=source, encryption=LuksFormat()
        )
        async with agent.client() as client:
            status = await client.post_job(request_for("op-1/make/1", 1, make, {"volume": secret}), 1)
            while status.progress is None or status.progress.done < 150 * MIB:
                assert not status.terminal, status
                status = await client.get_job("op-1/make/1", 5, status.seq)
            killed_at = status.progress.done
            await agent.kill()
        assert not (agent.volumes / "volumes" / volume).exists()
        partial = agent.volumes / "partial" / volume
        with partial.open("rb") as file:
            assert file.read(6) == bytes(6)
        await agent.start(f"jobs.rate_limit={48 * MIB}")
        async with agent.client() as client:
            waiting = await client.get_job("op-1/make/1")
            assert waiting.state == "needs-secret"
            again = await client.post_job(request_for("op-1/make/1", 1, make, {"volume": secret}), 1)
            while again.state != "running" or again.progress is None or again.progress.phase != "convert":
                assert not again.terminal, again
                again = await client.get_job("op-1/make/1", 5, again.seq)
            # A few pieces were under way, and it tells how far it is only now and then.
            assert again.progress.done >= killed_at - 80 * MIB
            status = await finish(client, "op-1/make/1", 1, make, volume=secret)
            assert status.state == "done", status
        assert files(agent) == {f"volumes/{volume}"}
        made = agent.volumes / "volumes" / volume
        assert made.stat().st_size == 258 * MIB
        await verify_opens(made, Secret("symmetric", secret.value()))
        assert content[:64] not in made.read_bytes()
        assert opened(made, secret.value().hex().encode()) == content + bytes(192 * MIB)
        log = agent.log.read_text()
        assert secret.value().hex() not in log
        assert secret.value().hex() not in journal_text(agent)
    finally:
        await agent.kill()


def writers(path: str) -> list[str]:
    """Processes that have the file open."""
    found = []
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if str(fd.readlink()) == path:
                found.append(fd.parts[2])
    return found
