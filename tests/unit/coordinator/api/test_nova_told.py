"""What Nova is told and asked while volumes of its servers are worked on; a small Nova, its protocol true."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from coordinator.compute.base import Compute
from coordinator.operations import completions
from coordinator.operations.completions import Completions
from coordinator.state import operations, volumes
from coordinator.state.operations import Operation
from tests.support import databases
from tests.support.nova import FakeNova, fake_nova
from tests.unit.coordinator.api.apitoy import P1
from tests.unit.coordinator.api.test_nova_sequences import SERVER, SERVICE, SOURCE, Nova
from tests.unit.coordinator.api.volumesite import Answered, Api, volume_api
from tests.unit.coordinator.operations.support import new_engine


class Here:
    """An API, and the Nova beside it."""

    def __init__(self, api: Api, fake: FakeNova, nova: Compute) -> None:
        self.api, self.fake, self.nova, self.calls = api, fake, nova, Nova(api)

    async def in_use(self, owner_known: bool = True) -> tuple[str, str]:
        """A volume that the server has; its id and the attachment's."""
        volume = (await self.api.volume())["id"]
        attachment = await self.calls.attached(volume)
        if owner_known:
            self.fake.attached[SERVER, volume] = attachment
        return volume, attachment

    async def extend(self, volume: str, size: int = 3) -> None:
        assert (await self.api.act(volume, "os-extend", {"new_size": size})).status == 202

    async def shown(self, volume: str) -> dict[str, Any]:
        return dict((await self.api("GET", f"/volumes/{volume}")).body["volume"])

    async def messages(self) -> list[str]:
        return [one["user_message"] for one in (await self.api("GET", "/messages")).body["messages"]]

    async def reserved(self) -> int:
        found = await self.api("GET", f"/os-quota-sets/{P1}?usage=true", who="root")
        return int(found.body["quota_set"]["gigabytes"]["in_use"])

    async def complete(self, volume: str, *, error: bool, who: str = "root") -> Answered:
        return await self.api.act(volume, "os-extend_volume_completion", {"error": error}, who=who)


@asynccontextmanager
async def made(tmp_path: Path, **settings: Any) -> AsyncIterator[Here]:
    async with fake_nova(servers={SERVER: "c1"}) as fake:
        nova = fake.nova(**settings)
        try:
            async with volume_api(tmp_path, compute=nova) as api:
                yield Here(api, fake, nova)
        finally:
            await nova.close()


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    async with made(tmp_path, completion_version="2.97", completion_deadline_s=30) as one:
        yield one


@contextmanager
def locked(file: Path, sock: Path) -> Iterator[None]:
    """The file as a running guest has it: opened by QEMU, which lets nobody else resize it."""
    options = [
        "--blockdev", f"driver=file,node-name=f,filename={file},locking=on",
        "--blockdev", "driver=raw,node-name=r,file=f",
        "--nbd-server", f"addr.type=unix,addr.path={sock}",
        "--export", "type=nbd,id=e,node-name=r,writable=on",
    ]  # fmt: skip
    daemon = subprocess.Popen(["qemu-storage-daemon", *options, "--daemonize", "--pidfile", f"{sock}.pid"])
    assert daemon.wait(60) == 0  # its parent ends when it serves
    process = int(Path(f"{sock}.pid").read_text())
    try:
        yield
    finally:
        pidfd = os.pidfd_open(process)
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        assert select.select([pidfd], [], [], 30)[0]
        os.close(pidfd)


async def until(here: Here, volume: str, status: str) -> dict[str, Any]:
    """The volume, once its status is this one."""
    async with asyncio.timeout(60):
        while (shown := await here.shown(volume))["status"] != status:
            await asyncio.sleep(0.02)
    return shown


async def test_servers_hear_of_an_extend_when_it_is_done(here: Here) -> None:
    volume, _ = await here.in_use()
    await here.extend(volume)
    await here.api.settled()
    shown = await here.shown(volume)
    assert (shown["status"], shown["size"]) == ("in-use", 3)
    assert here.fake.events == [{"name": "volume-extended", "server_uuid": SERVER, "tag": volume}]
    assert await here.messages() == []


async def test_a_free_volume_concerns_no_server(here: Here) -> None:
    volume = (await here.api.volume())["id"]
    await here.extend(volume)
    await here.api.settled()
    assert (await here.shown(volume))["size"] == 3
    assert here.fake.versions == []


async def test_an_extend_that_nova_does_not_hear_of_has_its_size_and_a_message(here: Here) -> None:
    volume, _ = await here.in_use()
    here.fake.faults = [500, 500, 500]
    await here.extend(volume)
    await here.api.settled()
    shown = await here.shown(volume)
    assert (shown["status"], shown["size"]) == ("in-use", 3)
    assert "Compute service failed to extend volume" in (await here.messages())[0]


async def test_the_volume_is_free_for_work_while_nova_does_not_answer(here: Here) -> None:
    volume, attachment = await here.in_use()
    here.fake.faults = ["hang"]
    await here.extend(volume)
    shown = await until(here, volume, "in-use")
    assert shown["size"] == 3
    await here.calls.delete(attachment)
    assert (await here.shown(volume))["status"] == "available"


@pytest.fixture
def file(here: Here, tmp_path: Path) -> Any:
    """The file of a volume, held as a guest holds it."""

    @contextmanager
    def held(volume: str) -> Iterator[Path]:
        path = tmp_path / "host-a" / "volumes" / "volumes" / volume
        with locked(path, tmp_path / "s"):
            yield path

    return held


def grow(path: Path) -> None:
    """What the guest's QEMU does with the file."""
    with path.open("r+b") as opened:
        opened.truncate(3 << 30)


async def test_who_has_the_file_locked_extends_it(here: Here, file: Any) -> None:
    volume, _ = await here.in_use()
    before = await here.reserved()
    with file(volume) as path:
        refused = subprocess.run(["qemu-img", "resize", "-f", "raw", path, "3G"], capture_output=True, check=False)
        assert b"lock" in refused.stderr
        await here.extend(volume)
        async with asyncio.timeout(60):
            await here.fake.heard.wait()
        shown = await here.shown(volume)
        assert (shown["status"], shown["size"], shown["metadata"]["extend_new_size"]) == ("extending", 1, "3")
        assert path.stat().st_size == 1 << 30
        user = {"metadata": {"extend_new_size": "1000000"}}
        await here.api("POST", f"/volumes/{volume}/metadata", json=user)
        assert (await here.shown(volume))["metadata"]["extend_new_size"] == "3"
        assert (await here.complete(volume, error=False, who="worker")).status == 403
        grow(path)
        assert (await here.complete(volume, error=False)).status == 202
        await here.api.settled()
    shown = await here.shown(volume)
    assert (shown["status"], shown["size"]) == ("in-use", 3)
    assert [event["name"] for event in here.fake.events] == ["volume-extended"]
    assert here.fake.versions == ["2.97"]
    assert await here.reserved() == before + 2
    assert (await here.complete(volume, error=False)).status == 400


async def test_a_server_that_fails_to_extend(here: Here, file: Any) -> None:
    volume, _ = await here.in_use()
    before = await here.reserved()
    with file(volume):
        await here.extend(volume)
        await asyncio.wait_for(here.fake.heard.wait(), 60)
        assert (await here.complete(volume, error=True)).status == 202
        await here.api.settled()
    shown = await here.shown(volume)
    assert (shown["status"], shown["size"], "extend_new_size" in shown["metadata"]) == ("error_extending", 1, False)
    assert await here.reserved() == before
    assert (await here.api.act(volume, "os-reset_status", {"status": "in-use"}, who="root")).status == 202
    assert (await here.shown(volume))["status"] == "in-use"


async def test_a_server_that_says_so_without_having_done_it(here: Here, file: Any) -> None:
    volume, _ = await here.in_use()
    with file(volume):
        await here.extend(volume)
        await asyncio.wait_for(here.fake.heard.wait(), 60)
        await here.complete(volume, error=False)
        await here.api.settled()
    shown = await here.shown(volume)
    assert (shown["status"], shown["size"]) == ("error_extending", 1)


async def test_an_answer_that_is_lost_is_given_up_by_hand(here: Here, file: Any) -> None:
    volume, _ = await here.in_use()
    before = await here.reserved()
    with file(volume):
        await here.extend(volume)
        await asyncio.wait_for(here.fake.heard.wait(), 60)
        assert (await here.api.act(volume, "os-reset_status", {"status": "in-use"}, who="root")).status == 202
    shown = await here.shown(volume)
    assert (shown["status"], shown["size"], "extend_new_size" in shown["metadata"]) == ("in-use", 1, False)
    assert await here.reserved() == before
    assert await here.api.here.db.read(lambda conn: operations.listing(conn, active=True)) == []


async def test_a_coordinator_that_dies_while_a_server_extends(here: Here, file: Any) -> None:
    """Whoever takes the work over waits on, and does not ask the server again."""
    volume, _ = await here.in_use()
    site = here.api.here
    with file(volume) as path:
        await here.extend(volume)
        await asyncio.wait_for(here.fake.heard.wait(), 60)
        async with asyncio.timeout(60):
            while (await working(here, volume)).step != "ask":
                await asyncio.sleep(0.02)
        await site.engine.close(0)
        next_one = new_engine(site.db, site.hosts, site.keys, "c2", compute=here.nova, completions=site.completions)
        await next_one.begin()
        grow(path)
        assert (await here.complete(volume, error=False)).status == 202
        assert await next_one.wait((await working(here, volume)).id, 30) is not None
        await next_one.close(0.2)
    shown = await here.shown(volume)
    assert (shown["status"], shown["size"], len(here.fake.events)) == ("in-use", 3, 1)


async def working(here: Here, volume: str) -> Operation:
    found = await here.api.here.db.read(lambda conn: operations.listing(conn, resource_id=volume))
    return found[0]


@pytest.mark.only("postgresql")
async def test_the_answer_may_come_to_another_coordinator(here: Here, file: Any, tmp_path: Path) -> None:
    volume, _ = await here.in_use()
    site = here.api.here
    other = databases.fresh(tmp_path / "state.db")
    for db, news in ((site.db, site.completions.follow), (other, lambda: None)):
        news()
        db.news.start()
    with file(volume) as path:
        await here.extend(volume)
        await asyncio.wait_for(here.fake.heard.wait(), 60)
        grow(path)

        def answered(conn: Connection) -> None:
            completions.answer(conn, volumes.get(conn, volume), failed=False)

        await other.write(answered)
        Completions(other).told(volume)
        await here.api.settled()
    await asyncio.to_thread(other.close)
    shown = await here.shown(volume)
    assert (shown["status"], shown["size"]) == ("in-use", 3)


@pytest.mark.parametrize("fault", [403, 404])
async def test_a_nova_that_does_not_want_to_extend(here: Here, file: Any, fault: int) -> None:
    volume, _ = await here.in_use()
    before = await here.reserved()
    with file(volume):
        here.fake.faults = [fault]
        await here.extend(volume)
        await here.api.settled()
    shown = await here.shown(volume)
    assert (shown["status"], shown["size"], await here.reserved()) == ("error_extending", 1, before)
    assert f"status {fault}" in (await here.messages())[0]


async def test_no_answer_until_the_deadline(tmp_path: Path) -> None:
    async with made(tmp_path, completion_version="2.97", completion_deadline_s=0.2) as here:
        volume, _ = await here.in_use()
        with locked(tmp_path / "host-a" / "volumes" / "volumes" / volume, tmp_path / "s"):
            await here.extend(volume)
            await here.api.settled()
        assert (await here.shown(volume))["status"] == "error_extending"
        assert "did not say within" in (await here.messages())[0]


async def test_a_locked_file_and_a_nova_that_does_not_call_back(tmp_path: Path) -> None:
    async with made(tmp_path) as here:
        volume, _ = await here.in_use()
        with locked(tmp_path / "host-a" / "volumes" / "volumes" / volume, tmp_path / "s"):
            await here.extend(volume)
            await here.api.settled()
        assert (await here.shown(volume))["status"] == "error_extending"
        assert here.fake.events == []


async def test_a_completion_that_nobody_waits_for(here: Here) -> None:
    volume = (await here.api.volume())["id"]
    answer = await here.complete(volume, error=False)
    assert (answer.status, "does not wait" in answer.body["badRequest"]["message"]) == (400, True)
    assert (await here.complete("99999999-2222-3333-4444-555555555555", error=False)).status == 404


async def test_nova_decides_what_a_user_may_end(here: Here) -> None:
    volume, attachment = await here.in_use()
    refused = await here.api("DELETE", f"/attachments/{attachment}")
    assert (refused.status, SERVER in refused.body["conflictingRequest"]["message"]) == (409, True)
    here.fake.faults = [500, 500, 500]
    unsure = await here.api("DELETE", f"/attachments/{attachment}")
    assert (unsure.status, "not known" in unsure.body["conflictingRequest"]["message"]) == (409, True)
    here.fake.attached[SERVER, volume] = "another"
    assert (await here.api("DELETE", f"/attachments/{attachment}")).status == 200
    assert (await here.shown(volume))["status"] == "available"


@pytest.mark.parametrize("how", ["os-detach", "os-force_detach"])
async def test_a_server_that_is_gone_holds_nothing(here: Here, how: str) -> None:
    volume, attachment = await here.in_use()
    assert (await here.api.act(volume, how, {"attachment_id": attachment}, who="root")).status == 409
    del here.fake.servers[SERVER]
    assert (await here.api.act(volume, how, {"attachment_id": attachment}, who="root")).status == 202
    assert (await here.shown(volume))["status"] == "available"


async def test_a_server_is_protected_also_where_no_service_vouched(here: Here) -> None:
    """The attachment was made without a service token, and Nova knows it."""
    volume = (await here.api.volume())["id"]
    wanted = {"volume_uuid": volume, "instance_uuid": SERVER, "connector": SOURCE}
    attachment = (await here.api("POST", "/attachments", json={"attachment": wanted})).body["attachment"]["id"]
    here.fake.attached[SERVER, volume] = attachment
    await here.api("POST", f"/attachments/{attachment}/action", json={"os-complete": None})
    assert (await here.api("DELETE", f"/attachments/{attachment}")).status == 409
    assert (await here.api("DELETE", f"/attachments/{attachment}", headers=SERVICE)).status == 200


async def test_what_is_only_reserved_needs_no_nova(here: Here) -> None:
    volume = (await here.api.volume())["id"]
    attachment = await here.calls.reserve(volume)
    assert (await here.api("DELETE", f"/attachments/{attachment}")).status == 200
    assert here.fake.versions == []
