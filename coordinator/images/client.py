"""The one interface between volumes and whichever service keeps the images."""

from __future__ import annotations

from typing import Protocol

from coordinator.images import catalog
from coordinator.images.catalog import Caller
from coordinator.images.info import ImageInfo
from coordinator.state.database import Database


class ImageClient(Protocol):
    """Asked before a volume is accepted, with the caller's own rights."""

    async def for_volume(self, image_id: str, caller: Caller) -> ImageInfo:
        """What making a volume needs to know; raises NoSuchImage, ImageKeyUnusable."""
        ...


class LocalImages:
    """The built-in catalog."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def for_volume(self, image_id: str, caller: Caller) -> ImageInfo:
        return await self._db.read(
            lambda conn: catalog.image_for_volume(conn, image_id, caller.project_id, caller.is_admin)
        )
