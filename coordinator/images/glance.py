"""A Glance as the keeper of images: asked with the caller's own token, so that its rules decide who sees what."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import aiohttp

from agent.base.ids import is_id
from agent.base.log import get_logger
from coordinator.images import catalog, info, locations
from coordinator.images.catalog import Caller
from coordinator.images.certificates import CertificateManager
from coordinator.images.client import ImageClient
from coordinator.images.errors import GlanceAway, GlanceRefuses, ImageKeyUnusable, NoSuchImage, NoSuchStore
from coordinator.images.fields import checked_property
from coordinator.images.info import ForeignKey, ImageInfo
from coordinator.images.settings import GlanceSettings
from coordinator.state.database import Database

log = get_logger(__name__)
_DIGESTS = frozenset({"sha256", "sha512"})
_MOST_BYTES = 1 << 22
_MOST_WORDS = 4096
_GONE = (204, 404, 410)
_MUST_BE_RIGHT = frozenset({info.FORMAT, info.DECRYPT_SIZE})
# What Glance itself says of an image; all else is its owner's properties.
_OWN = frozenset(
    {
        "id", "name", "owner", "status", "visibility", "protected", "disk_format", "container_format", "size",
        "virtual_size", "min_disk", "min_ram", "checksum", "os_hash_algo", "os_hash_value", "os_hidden", "tags",
        "created_at", "updated_at", "self", "file", "schema", "locations", "direct_url", "stores",
    }
)  # fmt: skip
# What a volume remembers beside the properties, as the clients know it.
_REMEMBERED = ("checksum", "container_format", "disk_format", "min_disk", "min_ram", "size")


class User(Protocol):
    """This service at the Keystone that the Glance believes."""

    async def token(self) -> str: ...
    async def close(self) -> None: ...


class Glance(ImageClient):
    """Lives on one event loop; end it with `close()`. Without `user` it is called without any login.

    `manager` is asked for secrets of images that do not lie here; whoever made it ends it.
    """

    outside = True

    def __init__(
        self, settings: GlanceSettings, db: Database, user: User | None = None,
        manager: CertificateManager | None = None,
    ) -> None:  # fmt: skip
        self._settings, self._db, self._user, self._manager = settings, db, user, manager
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._user is not None:
            await self._user.close()

    async def login(self) -> str:
        return await self._user.token() if self._user is not None else ""

    async def for_volume(self, image_id: str, caller: Caller, token: str | None = None) -> ImageInfo:
        status, found = await self._call("GET", f"/v2/images/{image_id}", token)
        if status != 200 or not is_id(str(found.get("id", ""))):
            raise NoSuchImage(id=image_id)
        for name in _MUST_BE_RIGHT & found.keys():
            checked_property(name, found[name])
        described = replace(self.describe(found), backing=await self._backing(found))
        try:
            await self._db.read(lambda conn: catalog.check_key(conn, described, caller.project_id))
        except ImageKeyUnusable:
            key = await self._key(described.key_id, token)
            if key is None:
                raise
            return replace(described, key=key)
        return described

    async def _key(self, key_id: str | None, token: str | None) -> ForeignKey | None:
        """By the right of the one who calls: without a token nothing is read."""
        if key_id is None or not token or self._manager is None:
            return None
        found = await self._manager.key(key_id, token)
        return None if found is None else ForeignKey(*found)

    async def version(self, image_id: str) -> str | None:
        status, found = await self._call("GET", f"/v2/images/{image_id}", await self.login())
        if status == 404 or (status == 200 and found.get("status") != "active"):
            return None
        if status != 200 or found.get("id") != image_id:
            raise GlanceAway(reason=f"it answered {status}")
        return self.describe(found).version

    async def _backing(self, found: Mapping[str, Any]) -> tuple[str, ...]:
        """Volumes that the image's locations name; users may not see those, this site's own login may."""
        if "cinder" not in self._settings.direct_url_schemes:
            return ()
        return await locations.volumes_of(found, self._as_service if self._user is not None else None)

    async def _as_service(self, method: str, path: str, **more: Any) -> tuple[int, dict[str, Any]]:
        return await self._call(method, path, await self.login(), **more)

    def describe(self, found: Mapping[str, Any]) -> ImageInfo:
        """An answer of Glance as volumes see the image."""
        properties = {key: value for key, value in found.items() if key not in _OWN and isinstance(value, str)}
        read = info.encryption(properties)
        encrypted = read.named or "luks" in (found.get("container_format"), found.get("disk_format"))
        virtual = _number(found.get("virtual_size"))
        kept = {key: value for key, value in properties.items() if not info.is_reserved(key)}
        own = {key: str(found[key]) for key in _REMEMBERED if found.get(key) is not None}
        return ImageInfo(
            id=str(found["id"]),
            name=found.get("name"),
            status=str(found.get("status")),
            owner=str(found.get("owner") or ""),
            disk_format=str(found.get("disk_format") or ""),
            container_format=str(found.get("container_format") or ""),
            size=_number(found.get("size")) or 0,
            virtual_size=virtual,
            min_disk=_number(found.get("min_disk")) or 0,
            digest=_digest(found),
            url=self.address(str(found["id"])),
            needs_login=self._user is not None,
            encrypted=encrypted,
            key_id=read.key_id,
            delete_key=read.delete_key,
            decrypt_size=(read.decrypt_size or virtual) if encrypted else None,
            version=f"{found.get('updated_at')} {found.get('os_hash_value') or found.get('checksum')}"[:255],
            properties={**kept, **own, "image_id": str(found["id"]), "image_name": str(found.get("name") or "")},
        )

    def address(self, image_id: str) -> str:
        """Where hosts find an image: `/v2/images/ID`."""
        return f"{self._settings.url}/v2/images/{image_id}"

    @property
    def needs_login(self) -> bool:
        return self._user is not None

    @property
    def upload_clones(self) -> bool:
        """Whether volumes are offered to it as the data of images."""
        return self._settings.upload_clones

    async def create(self, values: Mapping[str, Any], token: str | None) -> dict[str, Any]:
        """Register an image as the caller; returns what Glance says of it. Raises GlanceRefuses, GlanceAway."""
        status, found = await self._call("POST", "/v2/images", token, json=dict(values))
        if status == 400 and values.get("container_format") == "luks":
            # Unless its operator has named that format; the properties of encryption say the same.
            plain = {**values, "container_format": "bare"}
            status, found = await self._call("POST", "/v2/images", token, json=plain)
        if status != 201:
            refused = GlanceRefuses(reason=_words(found, status))
            refused.status = status if status in (400, 403, 409, 413) else 400
            raise refused
        return found

    async def withdraw(self, image_id: str) -> bool:
        """Remove an image that was registered for an upload; whether it is gone. One with data stays."""
        path, token = f"/v2/images/{image_id}", await self.login()
        status, found = await self._call("GET", path, token)
        if status == 200 and found.get("status") == "queued":
            if found.get("protected"):
                patch = json.dumps([{"op": "replace", "path": "/protected", "value": False}])
                await self._call("PATCH", path, token, kind=locations.PATCH, data=patch)
            status, _ = await self._call("DELETE", path, token)
            return status in _GONE
        return status == 404 and await self._is_missing(path)

    async def is_gone(self, image_id: str) -> bool:
        """Whether there is no such image any more, whoever may see it."""
        path = f"/v2/images/{image_id}"
        status, _ = await self._call("GET", path, await self.login())
        return status == 404 and await self._is_missing(path)

    async def _is_missing(self, path: str) -> bool:
        """Whether a 404 means that: a proxy before it says so when Glance is away, and Glance itself of what it hides.

        It tells its tasks to administrators alone, and those see every image.
        """
        status, found = await self._call("GET", "/v2/tasks?limit=1", await self.login())
        if status != 200 or "tasks" not in found:
            log.warning("it is not known whether an image is gone: not all are shown to this site", status=status)
            return False
        status, _ = await self._call("GET", path, await self.login())
        return status == 404

    async def check_store(self, store: str) -> None:
        """Raise NoSuchStore unless Glance has a store of that name that can be written to."""
        status, found = await self._call("GET", "/v2/info/stores", await self.login() or None)
        stores = [each for each in found.get("stores") or () if isinstance(each, Mapping)] if status == 200 else []
        writable = sorted(str(each.get("id")) for each in stores if each.get("read-only") not in (True, "true"))
        if store not in writable:
            raise NoSuchStore(store=store[:255], known=f"; it has {', '.join(writable)}" if writable else "")

    async def add_volume(self, image_id: str, volume_id: str, store: str | None) -> bool:
        place = await self._store_of_volumes(store)
        if place is None:
            return False
        url = f"cinder://{place}/{volume_id}" if place else f"cinder://{volume_id}"
        return await locations.add(image_id, url, place, self._as_service)

    async def _store_of_volumes(self, wanted: str | None) -> str | None:
        """The store that keeps volumes of a block storage service: `wanted`, else the default one, else any.

        Empty for a Glance that has one store alone, None where there is none.
        """
        status, found = await self._call("GET", "/v2/info/stores/detail", await self.login())
        if status == 404 and wanted is None:
            status, found = await self._call("GET", "/v2/info/stores", await self.login())
            return "" if status == 404 else None
        stores = [each for each in found.get("stores") or () if isinstance(each, Mapping)] if status == 200 else []
        fitting = [each for each in stores if each.get("type") == "cinder" and wanted in (None, each.get("id"))]
        fitting.sort(key=lambda each: each.get("default") not in (True, "true"))
        return str(fitting[0].get("id")) if fitting else None

    async def _call(
        self, method: str, path: str, token: str | None, *, kind: str = "application/json", **more: Any
    ) -> tuple[int, dict[str, Any]]:
        if self._session is None:
            context = self._settings.tls()
            connector = aiohttp.TCPConnector(ssl=context if context is not None else True)
            timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
        headers = {"X-Auth-Token": token} if token and self._user is not None else {}
        if "data" in more:
            headers["Content-Type"] = kind
        url = f"{self._settings.url}{path}"
        try:
            async with self._session.request(method, url, headers=headers, allow_redirects=False, **more) as answer:
                if answer.status >= 500:
                    raise GlanceAway(reason=f"it answered {answer.status}")
                if answer.content_type != "application/json":
                    refused = answer.status >= 400 and answer.content_type.startswith("text/")
                    return answer.status, _page(await answer.content.read(_MOST_WORDS)) if refused else {}
                if (answer.content_length or 0) > _MOST_BYTES:
                    raise GlanceAway(reason="its answer is too long")
                body = await answer.json()
                return answer.status, body if isinstance(body, dict) else {locations.LISTED: body}
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise GlanceAway(reason=str(error) or "no answer in time") from None


def _digest(found: Mapping[str, Any]) -> tuple[str, str] | None:
    """The strongest digest that is told."""
    name, value = found.get("os_hash_algo"), found.get("os_hash_value")
    if name in _DIGESTS and isinstance(value, str):
        return str(name), value
    value = found.get("checksum")
    return ("md5", value) if isinstance(value, str) and len(value) == 32 else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62 else None


def _page(text: bytes) -> dict[str, Any]:
    """Most refusals of Glance are pages of HTML: a heading with the status, and the reason."""
    body = re.sub(r"(?s)<(head|h1)>.*?</\1>", " ", text.decode(errors="replace"))
    words = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())
    return {"message": words} if words else {}


def _words(found: Mapping[str, Any], status: int) -> str:
    text = found.get("message")
    return str(text)[:400].rstrip(".") if text else f"it answered {status}"
