"""Two agents of one guest, by their own control APIs: the host that has a volume, and the host that uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.base.ids import new_id
from agent.host import sysfs
from agent.host.lvm import ATTACHED_PREFIX
from agent.privsep import block, client, start
from agent.wire.jobs import (
    AttachmentApply,
    AttachmentResize,
    Connection,
    ExportApply,
    Generation,
    JobStatus,
    LuksFormat,
    VolumeCreate,
    VolumeDelete,
    VolumeExtend,
    WantedAttachment,
    WantedExport,
    WireSecret,
)
from tests.integration.agent.agent_process import AgentProcess, Site, finish, persist
from tests.kernel.support.initiator import sh

MIB = 1 << 20
SIZE = 64 * MIB
CHAP = WireSecret.of("passphrase", b"chapcanary0123456789")
KEY = WireSecret.of("passphrase", b"luks-canary")


@dataclass(frozen=True, slots=True)
class Transport:
    """`table` is the target's in the configuration of the volume's host; `auth` none or chap.

    `remove` is the privileged verb that takes everything of one volume away from the target; `how` tells it more.
    """

    protocol: str
    initiator: str
    table: str
    remove: Callable[..., object]
    auth: str = "none"
    how: Mapping[str, object] = field(default_factory=dict)


@contextmanager
def pair_of(site: Site, transport: Transport) -> Iterator[Pair]:
    """Afterwards no secret is found in what the agents have written."""
    made = Pair(site, transport)
    yield made
    for agent in (made.away, made.home):
        asyncio.run(agent.kill())
    for canary in ("chapcanary", "luks-canary"):
        for path in (made.home.log, made.away.log, *made.home.state.rglob("*"), *made.away.state.rglob("*")):
            assert not path.is_file() or path.stat().st_size > SIZE or canary.encode() not in path.read_bytes(), path


class Pair:
    """The host that has the volume, the host that uses it, and one volume with its exports and attachments."""

    backend = "files"

    def __init__(self, site: Site, transport: Transport) -> None:
        self.home, self.away = AgentProcess(site, "home"), AgentProcess(site, "away")
        self.transport = transport
        with self.home.config.open("a") as config:
            config.write(f"{transport.table}\n")
        self.number = 0
        self.encryption: LuksFormat | None = None

    def key(self, what: str) -> str:
        self.number += 1
        return f"{new_id()}/{what}/1"

    def generation(self) -> Generation:
        self.number += 1
        return Generation(incarnation=1, sequence=self.number)

    def export_args(self, volume: str, *attachments: str, mode: str = "rw") -> ExportApply:
        return ExportApply.model_validate({
            "backend": self.backend, "volume_id": volume, "generation": self.generation(),
            "encrypted": self.encryption is not None,
            "wanted": [
                WantedExport.model_validate({
                    "attachment_id": one, "protocol": self.transport.protocol, "initiator": self.transport.initiator,
                    "mode": mode, "auth": self.transport.auth,
                })
                for one in attachments
            ],
        })  # fmt: skip

    def attach_args(self, volume: str, connection: Connection | None, *attachments: str) -> AttachmentApply:
        return AttachmentApply(
            backend=self.backend, volume_id=volume, generation=self.generation(), connection=connection,
            encryption=self.encryption, wanted=tuple(WantedAttachment(attachment_id=one) for one in attachments),
        )  # fmt: skip

    @property
    def secrets(self) -> dict[str, WireSecret]:
        return self.chap("chap") | ({"volume": KEY} if self.encryption else {})

    def chap(self, *names: str) -> dict[str, WireSecret]:
        """The secret under these names, where the transport has one."""
        return dict.fromkeys(names, CHAP) if self.transport.auth == "chap" else {}

    async def awake(self) -> Pair:
        """Both agents run; nothing is encrypted."""
        self.encryption = None
        for agent in (self.home, self.away):
            if agent.process is None or agent.process.poll() is not None:
                await agent.start()
        return self

    async def made(self) -> str:
        volume = new_id()
        args = VolumeCreate(backend=self.backend, volume_id=volume, size_bytes=SIZE, encryption=self.encryption)
        async with self.home.client() as told:
            good(await finish(told, self.key("make"), 1, args, **({"volume": KEY} if self.encryption else {})))
        return volume

    async def export(self, volume: str, *attachments: str, mode: str = "rw") -> dict[str, Connection]:
        args = self.export_args(volume, *attachments, mode=mode)
        async with self.home.client() as told:
            secrets = self.chap(*(f"chap.{one}" for one in attachments))
            result = good(await finish(told, self.key("export"), 1, args, **secrets))
        return {one["attachment_id"]: Connection.model_validate(one["connection"]) for one in result["exported"]}

    async def attach(self, volume: str, connection: Connection, attachment: str) -> JobStatus:
        async with self.away.client() as told:
            args = self.attach_args(volume, connection, attachment)
            return await finish(told, self.key("attach"), 1, args, **self.secrets)

    async def detach(self, volume: str, *, force: bool = False) -> JobStatus:
        args = self.attach_args(volume, None).model_copy(update={"force": force})
        async with self.away.client() as told:
            return await finish(told, self.key("detach"), 1, args)

    async def grow(self, volume: str, size: int) -> dict[str, int]:
        """Extended where it lies, followed where it is used; bytes of the device of each attachment, as told then."""
        encrypted, keys = self.encryption is not None, {"volume": KEY} if self.encryption else {}
        async with self.home.client() as home, self.away.client() as told:
            extend = VolumeExtend(backend=self.backend, volume_id=volume, size_bytes=size, encrypted=encrypted)
            grown = good(await finish(home, self.key("extend"), 1, extend, **keys))
            length = grown["device_bytes"] if encrypted else size
            follow = AttachmentResize(volume_id=volume, size_bytes=length, encrypted=encrypted)
            sizes: dict[str, int] = good(await finish(told, self.key("follow"), 1, follow, **keys))["sizes"]
            return sizes

    async def delete(self, volume: str) -> None:
        await self.export(volume)
        async with self.home.client() as told:
            good(await finish(told, self.key("delete"), 1, VolumeDelete(backend=self.backend, volume_id=volume)))

    @asynccontextmanager
    async def attached(self, mode: str = "rw") -> AsyncIterator[tuple[str, Connection, dict[str, Any]]]:
        """A new volume, exported and attached; gone with everything afterwards."""
        volume, attachment = await self.made(), new_id()
        connection = (await self.export(volume, attachment, mode=mode))[attachment]
        yield volume, connection, good(await self.attach(volume, connection, attachment))["attached"][0]
        good(await self.detach(volume))
        await self.delete(volume)

    async def killed(self, volume: str, connection: Connection, attachment: str, point: str) -> dict[str, Any]:
        """Attached by an agent that was killed at this point of it, and then started anew."""
        await self.away.kill()
        args = self.attach_args(volume, connection, attachment)
        return good(await persist(self.away, self.key("attach"), args, [f"testing.fault={point}"], **self.secrets))

    async def killed_detaching(self, volume: str, *, force: bool = False) -> None:
        await self.away.kill()
        fault = "testing.fault=agent.attachment.detached"
        args = self.attach_args(volume, None).model_copy(update={"force": force})
        good(await persist(self.away, self.key("detach"), args, [fault]))

    async def power_lost(self, *volumes: str) -> None:
        """The first host ends without a word: its agent, and the targets (of these volumes alone), with all below."""
        await self.home.kill()
        start.start_direct(roots=[self.home.volumes])
        try:
            for loop in client.invoke(block.loop_list, "export"):
                volume = loop["attachment_id"]
                if not volumes or volume in volumes:
                    client.invoke(self.transport.remove, volume, **self.transport.how)
                    client.invoke(block.loop_detach, loop["number"], loop["diskseq"], volume, "export")
            for found in sysfs.mapper_devices(ATTACHED_PREFIX):
                volume = found.title.removeprefix(ATTACHED_PREFIX)
                client.invoke(self.transport.remove, volume, **self.transport.how)
                below = sysfs.mapper_named(found.below[0])
                sh(f"dmsetup remove --retry {found.title} && dmsetup remove --retry {below.title if below else ''}")
        finally:
            client.set_mode("none")

    @asynccontextmanager
    async def booted(self, folder: Path) -> AsyncIterator[None]:
        """It is there again, as after a boot, with all that it had offered; no coordinator has told it anything."""
        (folder / "boot").write_text(new_id() + "\n")
        sh(f"mount --bind {folder}/boot /proc/sys/kernel/random/boot_id")
        try:
            await self.home.start()
            async with self.home.client() as told, asyncio.timeout(300):
                while any(one.state != "exported" for one in await told.exports()):
                    await asyncio.sleep(0.1)
                assert [one.reason for one in await told.exports() if one.reason] == []
            yield
        finally:
            sh("umount /proc/sys/kernel/random/boot_id")

    def file(self, volume: str) -> Path:
        return self.home.volumes / "volumes" / volume


def good(status: JobStatus) -> dict[str, Any]:
    assert status.state == "done", status
    assert status.result is not None
    return status.result
