"""Exports come back after a reboot whatever becomes of one try."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.base.ids import new_id
from agent.jobs import exports, restoring
from agent.jobs.exports import Wish
from agent.jobs.journal import Journal
from agent.targets.base import Consumer, Offered
from agent.wire.jobs import Connection, Generation, WantedExport

VOLUME, HOST = new_id(), "nqn.2014-08.org.nvmexpress:uuid:h"


class Target:
    """Fails once at each of these; `there` once it was told what to offer."""

    protocol = "nvme-tcp"

    def __init__(self, *failing: str) -> None:
        self.failing, self.there = list(failing), asyncio.Event()

    def _fail(self, name: str) -> None:
        if name in self.failing:
            self.failing.remove(name)
            raise FileNotFoundError(2, "gone", name)

    def offered(self) -> Mapping[str, Offered]:
        self._fail("offered")
        return {}

    async def apply(self, volume_id: str, path: Path, consumers: Sequence[Consumer]) -> Mapping[str, Connection]:
        self._fail("apply")
        self.there.set()
        return {}


@asynccontextmanager
async def hold(needs: Any) -> AsyncIterator[None]:
    yield None


@pytest.mark.parametrize("failing", ["offered", "apply"])
async def test_a_try_that_fails_is_followed_by_another(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restoring, "_FIRST_RETRY_S", 0.01)
    journal = Journal(tmp_path / "journal.db")
    await journal.open()
    target = Target(failing)

    async def path(volume_id: str) -> Path:
        return tmp_path / volume_id

    services = SimpleNamespace(
        journal=journal, boot_id="now", targets={target.protocol: target}, target=lambda protocol: target,
        backend=lambda name: SimpleNamespace(path=path),
    )  # fmt: skip
    wanted = WantedExport(attachment_id=new_id(), protocol="nvme-tcp", initiator=HOST)
    wish = Wish(VOLUME, "files", Generation(incarnation=1, sequence=1), (wanted,))
    await journal.write(partial(exports.decide, wish=wish))
    again = restoring.Restoring(services, hold)  # type: ignore[arg-type]
    again.start()
    try:
        await asyncio.wait_for(target.there.wait(), 60)
    finally:
        await again.stop()
        await journal.close()
