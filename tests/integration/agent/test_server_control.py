"""The control API of a real agent process: routes, roles, errors, stop and start."""

from __future__ import annotations

import asyncio
import os
import select
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from agent.base.errors import BrickyardError, Remote
from agent.base.ids import new_id
from agent.wire.errors import PeerRefused, Undelivered
from agent.wire.jobs import (
    AttachmentApply,
    Generation,
    VolumeCreate,
    VolumeDelete,
    WantedAttachment,
    request_for,
)
from agent.wire.tls import METRICS, host_role
from tests.integration.agent.agent_process import AgentProcess, Site, finish

MIB = 1 << 20


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


async def test_a_volume_is_made_told_and_removed(agent: AgentProcess) -> None:
    volume = new_id()
    async with agent.client() as client:
        status = await finish(client, "op-1/make/1", 1, VolumeCreate(backend="files", volume_id=volume, size_bytes=MIB))
        assert status.state == "done"
        made = {"volume_id": volume, "device_bytes": MIB, "usable_bytes": MIB, "rekeyed": False, "verified": False}
        assert status.result == made
        await client.acknowledge(["op-1/make/1"])
        path = agent.volumes / "volumes" / volume
        assert path.stat().st_size == MIB
        if os.geteuid() == 0:
            assert path.stat().st_uid != 0
        facts = await client.host()
        assert (facts.host, facts.data_port) == ("host-a", agent.data_port)
        assert "volume.create" in facts.job_kinds
        pools = await client.pools()
        assert [(pool.backend, pool.driver) for pool in pools] == [("files", "file")]
        assert [(held.kind, held.id) for held in (await client.inventory())[0]] == [("volume", volume)]
        assert await client.attachments() == []
        assert await client.exports() == []
        assert await client.issues() == []
        page = await client.metrics()
        assert 'brickyard_agent_jobs_ended_total{kind="volume.create",state="done"} 1.0' in page
        assert "brickyard_agent_certificate_days" in page
        assert "brickyard_agent_request_seconds" in page
        status = await finish(client, "op-2/remove/1", 1, VolumeDelete(backend="files", volume_id=volume))
        assert status.state == "done"
        assert await client.inventory() == ([], {})


async def test_a_report_tells_what_the_caller_does_not_have(agent: AgentProcess) -> None:
    volume = new_id()
    async with agent.client() as client:
        first = await client.report()
        assert first.host is not None
        assert first.pools is not None
        assert (first.host.host, [pool.backend for pool in first.pools]) == ("host-a", ["files"])
        assert first.held
        assert first.finished == ()
        again = await client.report(first.have)
        assert (again.host, again.held, again.clock >= first.clock) == (None, first.held, True)
        make = VolumeCreate(backend="files", volume_id=volume, size_bytes=MIB)
        assert (await finish(client, "op-1/make/1", 1, make)).state == "done"
        told = await client.report(again.have)
        assert told.held != first.held
        assert told.finished == ("op-1/make/1",)
        await client.acknowledge(["op-1/make/1"])
        assert (await client.report("of another kind")).host is not None
        assert (await client.report(told.have)).finished == ()
        # How much of a volume was written is no difference.
        with (agent.volumes / "volumes" / volume).open("r+b") as file:
            file.write(b"x" * 65536)
        assert (await client.report(told.have)).held == told.held


async def test_errors_keep_their_class_over_the_wire(agent: AgentProcess) -> None:
    create = VolumeCreate(backend="nowhere", volume_id=new_id(), size_bytes=MIB)
    async with agent.client() as client:
        status = await finish(client, "op-1/make/1", 3, create)
        assert status.error is not None
        assert (status.error.code, status.error.status) == ("backend.unknown", 404)
        assert "files" in status.error.message
        with pytest.raises(BrickyardError) as caught:
            await client.post_job(request_for("op-1/make/2", 2, create))
        assert (caught.value.code, caught.value.status) == ("stale-epoch", 409)
        with pytest.raises(BrickyardError) as caught:
            await client.get_job("op-9/x/1")
        assert caught.value.status == 404
        assert (await client.cancel("op-1/late/1", 3)).state == "cancelled"
        with pytest.raises(BrickyardError) as caught:
            await client.post_job(request_for("op-1/late/1", 3, create))
        assert caught.value.code == "job.tombstoned"
        with pytest.raises(BrickyardError) as caught:
            await client._transport.call("GET", "/v1/nothing")
        assert caught.value.code == "wire.no-such-call"
        with pytest.raises(BrickyardError) as caught:
            await client._transport.call("POST", "/v1/jobs", body={"key": "x", "secrets": {"volume": "canary"}})
        assert caught.value.code == "wire.bad-request"
        assert "canary" not in str(caught.value)


async def test_only_coordinators_may_call_and_a_metrics_certificate_may_read_metrics(agent: AgentProcess) -> None:
    for role in (host_role("host-b"), METRICS):
        async with agent.client(agent.site.identity(role)) as client:
            with pytest.raises((PeerRefused, Remote)) as caught:
                await client.host()
            assert caught.value.status == 403
    async with agent.client(agent.site.identity(METRICS)) as client:
        assert "brickyard_agent_jobs_live" in await client.metrics()
    with pytest.raises(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session:
            await session.get(f"https://127.0.0.1:{agent.port}/v1/host", ssl=False)


async def test_certificates_are_renewed_and_refused_while_it_runs(agent: AgentProcess) -> None:
    site = agent.site
    async with agent.client() as client:
        before = (agent.state / "identity" / "certificate.pem").read_text()
        issued = site.authority.sign_csr(await client.csr(), host_role("host-a"))
        await client.put_certificate(issued.chain, site.authority.ca_pem)
        assert (agent.state / "identity" / "certificate.pem").read_text() == issued.chain != before
        wrong = site.authority.sign_csr(await client.csr(), host_role("host-b"))
        with pytest.raises(BrickyardError):
            await client.put_certificate(wrong.chain, site.authority.ca_pem)
    async with agent.client() as client:
        assert (await client.host()).host == "host-a"
        await client.put_denied([])


async def test_files_are_for_its_user_alone_and_the_name_must_fit(agent: AgentProcess, site: Site) -> None:
    for path in (agent.state / "identity", agent.state / "locks", agent.volumes):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE((agent.state / "journal.db").stat().st_mode) == 0o600
    second = AgentProcess(site, "host-b")
    with pytest.raises(RuntimeError, match="state directory"):
        await second.start(f"agent.state_dir={agent.state}")
    with pytest.raises(RuntimeError, match="enrolled as host-b"):
        await second.start("agent.host=elsewhere")
    with pytest.raises(RuntimeError, match="control port"):
        await second.start(f"agent.port={agent.port}")
    with pytest.raises(RuntimeError, match="data port"):
        await second.start(f"agent.data_port={agent.data_port}")


async def test_a_graceful_stop_answers_who_waits_and_leaves_nothing_running(agent: AgentProcess) -> None:
    async with agent.client() as client:
        await finish(client, "op-1/make/1", 1, VolumeCreate(backend="files", volume_id=new_id(), size_bytes=MIB))
        assert agent.process is not None
        children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children").read_text().split()
        ends = [os.pidfd_open(int(child)) for child in children]
        assert await asyncio.wait_for(agent.stop(), 10) == 0
        for end in ends:
            assert select.select([end], [], [], 10)[0], "a daemon outlives its agent"
            os.close(end)
        with pytest.raises(Undelivered):
            await client.host()
    await agent.start()
    async with agent.client() as client:
        assert (await client.get_job("op-1/make/1")).state == "done"


async def test_an_idle_agent_sleeps(agent: AgentProcess) -> None:
    assert agent.process is not None
    folder = Path(f"/proc/{agent.process.pid}/task")

    def switches() -> int:
        total = 0
        for task in folder.iterdir():
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
        return total

    await asyncio.sleep(0.5)
    before = switches()
    await asyncio.sleep(3)
    assert switches() - before <= 4


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
async def test_an_ordinary_user_does_all_that_needs_no_privilege(site: Site) -> None:
    agent, volume = AgentProcess(site), new_id()
    agent.as_user(65534)
    await agent.start()
    try:
        async with agent.client() as client:
            create = VolumeCreate(backend="files", volume_id=volume, size_bytes=MIB)
            assert (await finish(client, "op-1/make/1", 1, create)).state == "done"
            apply = AttachmentApply(
                backend="files",
                volume_id=volume,
                generation=Generation(incarnation=1, sequence=1),
                wanted=(WantedAttachment(attachment_id=new_id()),),
            )
            status = await finish(client, "op-2/attach/1", 1, apply)
            assert status.error is not None
            assert status.error.code.startswith("privilege")
            nothing = apply.model_copy(update={"wanted": (), "generation": Generation(incarnation=1, sequence=2)})
            assert (await finish(client, "op-3/detach/1", 1, nothing)).state == "done"
            remove = VolumeDelete(backend="files", volume_id=volume)
            assert (await finish(client, "op-4/remove/1", 1, remove)).state == "done"
    finally:
        await agent.kill()


async def test_no_process_of_an_agent_leaves_a_core_file(agent: AgentProcess) -> None:
    """Keys are in the memory of the agent, of its daemons and of its tools."""
    assert agent.process is not None
    family = [agent.process.pid]
    children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children")
    family += [int(pid) for pid in children.read_text().split()] if children.exists() else []
    for pid in family:
        (line,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in line]
        assert line.split()[4:6] == ["0", "0"], line
