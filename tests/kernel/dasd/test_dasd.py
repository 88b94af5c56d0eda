"""Real DASDs through the agent's own HTTP API: the whole life of one, and what may come in between."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from agent.base.ids import new_id
from agent.host import ccw
from agent.wire.errors import OutcomeUnknown, Undelivered
from agent.wire.jobs import (
    AttachmentApply,
    ChannelDevice,
    Connection,
    Generation,
    JobStatus,
    LuksFormat,
    WantedAttachment,
    WireSecret,
    request_for,
)
from tests.integration.agent.agent_process import AgentProcess, Site, finish
from tests.integration.agent.zygote import Zygote
from tests.kernel.support import initiator
from tests.kernel.support.hercules import moved, order

A, B = "0.0.0120", "0.0.0121"
UID = {A: "HRC.ZZ000000000001.0120.20", B: "HRC.ZZ000000000001.0120.21"}
SIZE = 100 * 15 * 12 * 4096
KEY = WireSecret.of("passphrase", b"luks-canary")
LIMITS = f'[ccw]\nbus_ids = ["{A}-{B}", "0.0.0fff"]\n'
IMPORTS = """
from pathlib import Path
from agent.base.config import load
from agent.server.main import run_agent
from agent.server.settings import AgentSettings
import agent.connectors.eckd
"""
BODY = """
    import ctypes
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, as the unit does
    settings = load(AgentSettings, Path(request["config"]), request["sets"])
    return run_agent(settings, dev=True, on_ready=lambda: os.write(ready, b"r"))
"""
pytestmark = pytest.mark.timeout(1800)


@cache
def zygote() -> Zygote:
    return Zygote(IMPORTS, BODY)


class Agent(AgentProcess):
    """An agent within the limits of root's own file, and the one volume of each DASD."""

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        limits = site.folder / "limits.toml"
        limits.write_text(LIMITS)
        with self.config.open("a") as config:
            config.write(f'[privsep]\nlimits_file = "{limits}"\n')
        self.volumes_of = {A: new_id(), B: new_id()}
        self.number = 0

    async def start(self, *sets: str) -> None:
        request = {"config": str(self.config), "sets": list(sets)}
        self.process, read = zygote().fork(request, self.log)
        try:
            ready = await asyncio.wait_for(asyncio.to_thread(os.read, read, 1), 600)
        finally:
            os.close(read)
        assert ready == b"r", self.log.read_text()[-3000:]

    def args(
        self, bus_id: str, *, wanted: bool = True, uid: str = "", mode: str = "rw",
        encryption: LuksFormat | None = None, **channel: Any,
    ) -> AttachmentApply:  # fmt: skip
        self.number += 1
        device = ChannelDevice(bus_id=bus_id, read_only=mode == "ro", **channel)
        told = Connection(protocol="eckd", target=bus_id, identity=uid or UID[bus_id], size_bytes=SIZE, channel=device)
        volume = self.volumes_of.get(bus_id) or new_id()
        return AttachmentApply.model_validate({
            "backend": "files", "volume_id": volume, "connection": told, "encryption": encryption,
            "generation": Generation(incarnation=1, sequence=self.number),
            "wanted": (WantedAttachment.model_validate({"attachment_id": volume, "mode": mode}),) if wanted else (),
        })  # fmt: skip

    async def apply(self, args: AttachmentApply) -> JobStatus:
        secrets = {"volume": KEY} if args.encryption is not None and args.wanted else {}
        return await self.finished(f"{new_id()}/dasd/1", args, **secrets)

    async def finished(self, key: str, args: AttachmentApply, **secrets: WireSecret) -> JobStatus:
        """As a coordinator would: what got no answer is asked again, by the same key."""
        async with asyncio.timeout(900), self.client() as told:
            while True:
                with suppress(Undelivered, OutcomeUnknown):
                    return await finish(told, key, 1, args, **secrets)

    async def attach(self, bus_id: str, **more: Any) -> dict[str, Any]:
        """The attached device, as the agent tells it."""
        status = await self.apply(self.args(bus_id, **more))
        assert status.state == "done", status
        assert status.result is not None
        [device] = status.result["attached"]
        return dict(device)

    async def detach(self, bus_id: str) -> JobStatus:
        return await self.apply(self.args(bus_id, wanted=False))

    async def told_state(self, bus_id: str) -> str:
        async with self.client() as told:
            return next(one.state for one in await told.attachments() if one.volume_id == self.volumes_of[bus_id])


@pytest.fixture(scope="module")
def host() -> Iterator[Agent]:
    subprocess.run(["modprobe", "-a", "dm_mod", "dm_crypt"], check=True)
    site = Site()
    made = Agent(site)
    asyncio.run(made.start())
    yield made
    asyncio.run(made.kill())
    print(made.log.read_text()[-2000:])
    site.remove()


@pytest.fixture
async def agent(host: Agent) -> AsyncIterator[Agent]:
    """It runs; afterwards both DASDs are offline and ignored again."""
    if host.process is None or host.process.poll() is not None:
        await host.start()
    yield host
    for bus_id in (A, B):
        status = await host.detach(bus_id)
        assert status.state == "done", status
        assert ccw.device(bus_id) is None
        assert ccw.is_ignored(bus_id)


async def test_ignored_and_unformatted_nothing_is_formatted_without_an_order(agent: Agent) -> None:
    assert ccw.device(A) is None
    status = await agent.apply(agent.args(A))
    assert status.error is not None
    assert status.error.code == "eckd.unformatted", status
    found = ccw.dasd(A)
    assert found is None or not found.online


async def test_another_device_than_promised_is_never_formatted(agent: Agent) -> None:
    status = await agent.apply(agent.args(A, uid=UID[B], layout="ldl"))
    assert status.error is not None
    assert status.error.code == "eckd.foreign", status
    subprocess.run(["cio_ignore", "-r", A], check=True)
    subprocess.run(["udevadm", "settle"], check=True)
    subprocess.run(["chccwdev", "-e", A], check=True)
    assert (found := ccw.dasd(A)) is not None
    assert found.status == "unformatted"


async def test_an_absent_one_and_one_outside_of_the_limits(agent: Agent) -> None:
    for bus_id, code in (("0.0.0fff", "eckd.absent"), ("0.0.0205", "privilege.refused")):
        status = await agent.apply(agent.args(bus_id, uid="HRC.ZZ000000000001.0120.99"))
        assert status.error is not None
        assert status.error.code == code, status
    assert ccw.is_ignored("0.0.0fff")
    assert (kept := ccw.dasd("0.0.0205")) is not None
    assert kept.online  # a disk of this guest, which root did not name


async def test_formatted_on_order_written_and_read_by_content(agent: Agent) -> None:
    """Every byte of the whole device is the volume's, its first ones, too."""
    content = os.urandom(1 << 20)
    device = await agent.attach(A, layout="ldl")
    path = Path(device["device"])
    assert initiator.size(path) == SIZE
    initiator.write(path, content)
    assert (await agent.detach(A)).state == "done"
    assert ccw.device(A) is None
    again = await agent.attach(A)
    assert initiator.read(Path(again["device"]), len(content)) == content


async def test_busy_is_refused_and_stays_usable(agent: Agent) -> None:
    path = Path((await agent.attach(A))["device"])
    fd = os.open(path, os.O_RDONLY)
    try:
        status = await agent.detach(A)
        assert status.error is not None
        assert status.error.code == "attachment.left-over", status
        assert (found := ccw.dasd(A)) is not None
        assert found.online
        assert len(os.pread(fd, 4096, 4096)) == 4096
    finally:
        os.close(fd)


async def test_a_mounted_one_names_its_mount(agent: Agent, tmp_path: Path) -> None:
    path = Path((await agent.attach(A))["device"])
    subprocess.run(["mkfs.ext4", "-q", "-F", path], check=True)
    subprocess.run(["mount", path, tmp_path], check=True)
    try:
        (tmp_path / "kept").write_text("kept")
        status = await agent.detach(A)
        assert status.error is not None
        assert str(tmp_path) in status.error.message, status
    finally:
        subprocess.run(["umount", tmp_path], check=True)
    assert (await agent.detach(A)).state == "done"
    path = Path((await agent.attach(A))["device"])
    subprocess.run(["mount", "-o", "ro", path, tmp_path], check=True)
    try:
        assert (tmp_path / "kept").read_text() == "kept"
    finally:
        subprocess.run(["umount", tmp_path], check=True)


async def test_read_only(agent: Agent) -> None:
    path = Path((await agent.attach(A, mode="ro"))["device"])
    with pytest.raises(OSError) as refused:
        initiator.write(path, bytes(4096))
    assert refused.value.errno in {errno.EROFS, errno.EPERM, errno.EACCES}
    assert len(initiator.read(path, 4096)) == 4096


async def test_two_at_once_are_told_apart_by_their_numbers(agent: Agent) -> None:
    first, second = await asyncio.gather(agent.attach(B, layout="ldl"), agent.attach(A))
    for bus_id, device in ((B, first), (A, second)):
        assert (found := ccw.dasd(bus_id)) is not None
        assert (found.device, found.diskseq) == (device["device"], device["diskseq"])


async def test_encrypted(agent: Agent, tmp_path: Path) -> None:
    """dm-crypt above a DASD: what is written clear lies encrypted on it."""
    path, key = Path((await agent.attach(B))["device"]), tmp_path / "key"
    key.write_bytes(KEY.value())
    options = "--type luks1 --pbkdf-force-iterations 1000 --cipher aes-xts-plain64 --key-size 512".split()
    subprocess.run(["cryptsetup", "luksFormat", "-q", *options, "--key-file", key, path], check=True)
    assert (await agent.detach(B)).state == "done"
    told = await agent.attach(B, encryption=LuksFormat(format="luks1"))
    assert (told["raw"], told["device"].startswith("/dev/mapper/")) == (False, True)
    content = b"clear" * 4096
    initiator.write(Path(told["device"]), content[:16384])
    assert initiator.read(Path(told["device"]), 16384) == content[:16384]
    assert b"clear" not in initiator.read(Path(told["raw_device"]), 4 << 20)
    assert (await agent.detach(B)).state == "done"
    assert not Path(told["device"]).exists()


async def test_taken_away_and_given_back(agent: Agent) -> None:
    content = os.urandom(65536)
    path = Path((await agent.attach(B))["device"])
    initiator.write(path, content)
    assert await agent.told_state(B) == "attached"
    await moved(B, "no device", "detach 0121")
    assert (found := ccw.dasd(B)) is not None
    assert found.online  # which proves nothing
    assert await agent.told_state(B) == "missing"
    await moved(B, "good", "attach 0121 3390 dasd.0121")
    assert await agent.told_state(B) == "attached"
    assert initiator.read(path, len(content)) == content


async def test_detached_while_it_is_away(agent: Agent) -> None:
    await agent.attach(B)
    await moved(B, "no device", "detach 0121")
    assert (await agent.detach(B)).state == "done"
    order("attach 0121 3390 dasd.0121")
    path = Path((await agent.attach(B))["device"])
    assert initiator.size(path) == SIZE


@pytest.mark.parametrize("point", ["agent.attachment.attached", "agent.attachment.detached"])
async def test_killed_and_started_anew(agent: Agent, point: str) -> None:
    if point.endswith("detached"):
        await agent.attach(A)
    await agent.kill()
    await agent.start(f"testing.fault={point}")
    args = agent.args(A, wanted=not point.endswith("detached"))
    key = f"{new_id()}/dasd/1"
    async with agent.client() as told:
        with suppress(Undelivered, OutcomeUnknown):
            await told.post_job(request_for(key, 1, args, {}), wait_s=60)
    assert await agent.died() != 0
    await agent.start()
    assert (await agent.finished(key, args)).state == "done"
    found = ccw.dasd(A)
    assert (found is not None and found.online) == bool(args.wanted)
