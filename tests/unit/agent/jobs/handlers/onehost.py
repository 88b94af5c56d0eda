"""One host's services on the real file back end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.backends.config import FileBackendConfig
from agent.backends.file import FileBackend
from agent.images.config import ImagesConfig
from agent.images.spool import MemorySpool, Spool
from agent.images.store import ImageStore
from agent.jobs import registry
from agent.jobs.conversion import Conversion
from agent.jobs.journal import Journal
from agent.jobs.kinds import Context
from agent.jobs.services import Services
from agent.wire.jobs import (
    JobArgs,
    Progress,
    TransferRef,
    WireSecret,
)

MIB = 1 << 20


SECRET = WireSecret.of("passphrase", b"a passphrase")


needs_cryptsetup = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup")


class Host:
    """One host's services; `fetched` is what a transfer would give."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fetched, self.fetched_into = folder, b"", ""
        self.journal = Journal(folder / "journal.db")
        self.backend = FileBackend("files", FileBackendConfig(path=folder / "files"))
        self.store = ImageStore(folder / "images")
        self.store.open()
        spool = Spool(folder / "spool", 1 << 30)
        spool.open()
        config = ImagesConfig(passphrase_iterations=1000)
        self.services = Services(
            host="host-a",
            journal=self.journal,
            backends={"files": self.backend},
            passphrase_iterations=1000,
            conversion=Conversion(spool, MemorySpool(256 * MIB), config, self._fetch),
            images=self.store,
        )
        self.told: list[Progress] = []

    async def _fetch(self, ref: TransferRef, fd: int, size: int, tell: Callable[[int], None]) -> int:
        self.fetched_into = os.readlink(f"/proc/self/fd/{fd}")
        os.pwrite(fd, self.fetched, 0)
        tell(len(self.fetched))
        return len(self.fetched)

    def context(self, **secrets: WireSecret) -> Context:
        async def save(checkpoint: dict[str, object]) -> None:
            return None

        return Context(key="op/x/1", services=self.services, report=self.told.append, save=save, secrets=secrets)

    async def do(self, args: JobArgs, **secrets: WireSecret) -> dict[str, object]:
        kind = registry.KINDS[args.kind]
        assert kind.secrets(args) <= secrets.keys()
        result = await kind.run(self.context(**secrets), args)
        return result.model_dump(mode="json") if result is not None else {}

    async def abandon(self, args: JobArgs) -> None:
        await registry.KINDS[args.kind].abandon(self.context(), args)

    def files(self) -> set[str]:
        root = self.folder / "files"
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
