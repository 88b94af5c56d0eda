"""Kinds that a test steers, on the real journal, runner and locks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.base.ids import new_id
from agent.jobs.journal import Journal
from agent.jobs.kinds import Context, Kind, Needs
from agent.jobs.runner import Runner, RunnerOptions
from agent.jobs.services import Services
from agent.wire.jobs import (
    JobRequest,
    LuksFormat,
    Progress,
    VolumeCreate,
    VolumeDelete,
    VolumeFromImage,
    WireSecret,
    request_for,
)
from agent.wire.results import VolumeResult

VOLUME = "11111111-2222-4333-8444-555555555555"


@dataclass
class Work:
    """What the steered `volume.create` does: counts its runs, waits for `go` when `held`."""

    runs: int = 0
    abandoned: int = 0
    running: int = 0
    most: int = 0
    held: bool = False
    error: Exception | None = None
    seen: list[Context] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, context: Context, args: VolumeCreate) -> VolumeResult:
        self.runs += 1
        self.running += 1
        self.most = max(self.most, self.running)
        self.order.append(context.key)
        self.seen.append(context)
        self.begun.set()
        try:
            if self.held:
                await self.go.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.running -= 1
        return VolumeResult(volume_id=args.volume_id, device_bytes=args.size_bytes, usable_bytes=args.size_bytes)

    async def checkpointed(self, context: Context, args: Any) -> None:
        self.seen.append(context)
        self.runs += 1
        done = (context.checkpoint or {"done": 0})["done"]
        context.report(Progress(phase="copy", done=done, total=10))
        await context.save({"done": done + 5})
        self.begun.set()
        await self.go.wait()

    async def abandon(self, context: Context, args: Any) -> None:
        self.abandoned += 1

    def kinds(self) -> dict[str, Kind]:
        def volume(args: Any) -> Needs:
            return Needs(exclusive=(f"volume-{args.volume_id}",))

        def secrets(args: VolumeCreate) -> frozenset[str]:
            return frozenset({"volume"}) if args.encryption else frozenset()

        return {
            "volume.create": Kind("volume.create", self.run, volume, self.abandon, secrets),
            "volume.delete": Kind("volume.delete", self.run_delete, volume),
            "volume.from_image": Kind("volume.from_image", self.checkpointed, volume, self.abandon, lane="heavy"),
        }

    async def run_delete(self, context: Context, args: VolumeDelete) -> None:
        self.order.append(context.key)


def create(
    key: str = "op/make/1", epoch: int = 1, volume: str = VOLUME, size: int = 1 << 20, secret: bytes | None = None
) -> JobRequest:
    encryption = LuksFormat() if secret is not None else None
    args = VolumeCreate(backend="files", volume_id=volume, size_bytes=size, encryption=encryption)
    secrets = {"volume": WireSecret.of("passphrase", secret)} if secret is not None else {}
    return request_for(key, epoch, args, secrets)


def delete(key: str = "op2/remove/1", epoch: int = 1, volume: str = VOLUME) -> JobRequest:
    return request_for(key, epoch, VolumeDelete(backend="files", volume_id=volume))


def from_image(key: str = "op3/convert/1", volume: str = VOLUME) -> JobRequest:
    image = {"image_id": new_id(), "disk_format": "raw", "container_format": "bare", "size_bytes": 10}
    args = VolumeFromImage.model_validate({"backend": "files", "volume_id": volume, "size_bytes": 10, "image": image})
    return request_for(key, 1, args)


@asynccontextmanager
async def runner_at(folder: Path, work: Work, **options: Any) -> AsyncIterator[Runner]:
    """A started runner on the journal of `folder`; leaving it is the graceful stop."""
    locks = folder / "locks"
    locks.mkdir(exist_ok=True)
    journal = Journal(folder / "journal.db")
    await journal.open()
    runner = Runner(
        journal, work.kinds(), Services(host="host-a", journal=journal), RunnerOptions(lock_dir=locks, **options)
    )
    try:
        await runner.start()
        yield runner
    finally:
        await runner.stop(0.05)
        await journal.close()
