"""Jobs of volumes on LVM, posted to one agent as a coordinator would; what the devices made by them hold."""

from __future__ import annotations

from pathlib import Path

from agent.base.ids import new_id
from agent.wire.jobs import AttachmentApply, Generation, JobArgs, LuksFormat, WantedAttachment, WireSecret
from tests.integration.agent.agent_process import AgentProcess, finish
from tests.support.luks import opens


def phrase(secret: WireSecret) -> bytes:
    """What opens LUKS: a symmetric key is told in hexadecimal."""
    return secret.value().hex().encode()


class Caller:
    """Posts jobs as a coordinator would; each must succeed."""

    def __init__(self, agent: AgentProcess, backend: str) -> None:
        self.agent, self.backend, self.count = agent, backend, 0

    async def do(self, args: JobArgs, **secrets: WireSecret) -> dict[str, object]:
        self.count += 1
        async with self.agent.client() as client:
            status = await finish(client, f"{self.backend}-{self.count}/step/1", 1, args, **secrets)
        assert status.state == "done", (status.error, self.agent.log.read_text()[-3000:])
        return status.result or {}

    def apply(self, volume: str, *wanted: str, encryption: LuksFormat | None = None) -> AttachmentApply:
        self.count += 1
        return AttachmentApply(
            backend=self.backend, volume_id=volume, encryption=encryption,
            generation=Generation(incarnation=1, sequence=self.count),
            wanted=tuple(WantedAttachment(attachment_id=one) for one in wanted),
        )  # fmt: skip

    async def look(
        self, volume: str, secret: WireSecret, encryption: LuksFormat, data: bytes, *refused: WireSecret
    ) -> bytes:
        """Attached through dm-crypt the volume has these bytes, and its header opens by `secret` alone; raw bytes."""
        attachment = new_id()
        result = await self.do(self.apply(volume, attachment, encryption=encryption), volume=secret)
        below = Path(f"/dev/mapper/brickyard-lv-{attachment}")
        with device_of(result).open("rb", buffering=0) as seen:
            assert seen.read(len(data)) == data
        assert opens(below, phrase(secret))
        assert not any(opens(below, phrase(one)) for one in refused)
        raw = below.read_bytes()
        await self.do(self.apply(volume, encryption=encryption))
        assert data[:4096] not in raw
        return raw


def device_of(result: dict[str, object]) -> Path:
    (attached,) = result["attached"]  # type: ignore[misc]
    return Path(attached["device"])  # type: ignore[index]
