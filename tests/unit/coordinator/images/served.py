"""A client of Glance beside what a test lets a server say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from coordinator.images.glance import Glance
from coordinator.images.settings import GlanceSettings
from tests.support import databases


@asynccontextmanager
async def glance_of(app: web.Application, folder: Path) -> AsyncIterator[Glance]:
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    db = databases.fresh(folder / "of-images.db")
    glance = Glance(GlanceSettings(url=f"http://127.0.0.1:{runner.addresses[0][1]}", auth="none"), db)
    try:
        yield glance
    finally:
        await glance.close()
        db.close()
        await runner.cleanup()
