"""The one interface between volumes and whichever service keeps the images."""

from __future__ import annotations

from coordinator.images import catalog
from coordinator.images.catalog import Caller
from coordinator.images.errors import NoSuchImage, NoSuchStore
from coordinator.images.info import ImageInfo
from coordinator.state.database import Database

_ANYBODY = Caller("", is_admin=True)


class ImageClient:
    """Asked before a volume is accepted, with the caller's own rights; this one has no images.

    `outside`: no part of this site.
    """

    outside = False

    async def for_volume(self, image_id: str, caller: Caller, token: str | None = None) -> ImageInfo:
        """What making a volume needs to know; `token` is the caller's own.

        Raises NoSuchImage, ImageKeyUnusable, ImageInvalid.
        """
        raise NoSuchImage(id=image_id[:64])

    async def version(self, image_id: str) -> str | None:
        """As in `ImageInfo`, whoever may see it; None when no volume can be made of it. Raises Temporary errors."""
        return None

    async def login(self) -> str:
        """What a host shows to a service outside of the site; empty where it shows nothing."""
        return ""

    async def add_volume(self, image_id: str, volume_id: str, store: str | None) -> bool:
        """Make a volume of this site the data of an image that has none; False where the service will not have it."""
        return False

    async def check_store(self, store: str) -> None:
        """Raise NoSuchStore unless there is a store of that name that can be written to."""
        raise NoSuchStore(store=store[:255], known="")

    async def close(self) -> None:
        """End its connections."""


class LocalImages(ImageClient):
    """The built-in catalog."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def for_volume(self, image_id: str, caller: Caller, token: str | None = None) -> ImageInfo:
        return await self._db.read(
            lambda conn: catalog.image_for_volume(conn, image_id, caller.project_id, caller.is_admin)
        )

    async def version(self, image_id: str) -> str | None:
        try:
            found = await self._db.read(lambda conn: catalog.describe(catalog.show(conn, _ANYBODY, image_id)))
        except NoSuchImage:
            return None
        return found.version if found.status == "active" else None
