"""Progress of work for those who ask another coordinator: written into the rows now and then, all of it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from agent.base.log import get_logger
from coordinator.operations.watch import Watchers
from coordinator.state import news, operations
from coordinator.state.database import Database

log = get_logger(__name__)
_EVERY_S = 2.0


class SharedProgress:
    """`note` what has changed; `run` writes it. Only the newest progress of each operation counts, none must last."""

    def __init__(self, db: Database, watchers: Watchers, epochs: Mapping[str, int], owner: str) -> None:
        self._db, self._watchers, self._epochs, self._owner = db, watchers, epochs, owner
        self._changed: set[str] = set()
        self._wake = asyncio.Event()

    def note(self, operation_id: str) -> None:
        self._changed.add(operation_id)
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.flush()
            except Exception as error:  # noqa: BLE001 - the next one comes by itself
                log.info("progress could not be shared", reason=str(error))
            await asyncio.sleep(_EVERY_S)

    async def flush(self) -> None:
        changed, self._changed = self._changed, set()
        told = []
        for operation_id in sorted(changed):
            seq, progress = self._watchers.latest(operation_id)
            if progress is not None and operation_id in self._epochs:
                told.append((operation_id, self._epochs[operation_id], {"seq": seq, "told": progress}))
        if not told:
            return
        await self._db.write(lambda conn: operations.note_progress(conn, self._owner, told), patient=True)
        for operation_id, _, _ in told:
            self._db.news.tell(news.PROGRESS, operation_id)
