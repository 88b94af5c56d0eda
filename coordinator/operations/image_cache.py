"""The image cache of a back end: the first volume of an image fills a hidden one, the others are clones of that.

What is kept belongs to a project of the site's own and counts to no quota. The operation that finds nothing fills it
by a job of its own; others that want the same image meanwhile wait for that and clone, so that an image is fetched
once. Whoever may not see an image was refused before any of this; encrypted volumes never share a key, so they
neither fill nor use it. An image whose data already are a volume in the same pool is cloned from that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.ids import new_id
from agent.base.log import get_logger
from agent.wire.jobs import VolumeDelete, VolumeFromImage
from coordinator.images.errors import SignatureNotVerified
from coordinator.operations import sizes
from coordinator.operations.image_source import Login, image_source, late_login
from coordinator.operations.volume_calls import PLACE, unmake, volume_row
from coordinator.operations.workflow import JobCall, Result
from coordinator.scheduler.claims import claim, release
from coordinator.state import events, image_cache, metadata, operations, volumes
from coordinator.state.database import Database
from coordinator.state.image_cache import Limits
from coordinator.state.operations import Operation
from coordinator.state.transition import enter, move
from coordinator.state.volumes import backend_of

log = get_logger(__name__)
NOT_KEPT = frozenset({"backend.no-space", "backend.over-subscribed", "image.size"})
"""What keeps an image from being kept, but not from becoming a volume."""
SOURCE_GONE = frozenset({"backend.not-found"})
_PATIENCE_S, _LOOK_S = 3600.0, 15.0
_TRIES = 2
"""How often something kept is cloned in vain before it leaves: its data may be lost, and each volume would fail."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose the cached volumes are: nobody's who logs in."""

    project_id: str
    user_id: str


class ImageCache:
    """The steps that `create_volume` takes; without an owner nothing is kept."""

    def __init__(self, db: Database | None = None, owner: Owner | None = None) -> None:
        self._db, self.owner = db, owner
        self._warned = False

    def offered(self, conn: Connection, operation: Operation, pool_id: str) -> Result | None:
        """What the pool's cache could do for this volume."""
        image, row = operation.args.get("image"), volume_row(conn, operation)
        if image is None or image["encrypted"] or row.encryption_format is not None or not image.get("version"):
            return None
        found = image_cache.limits(conn, pool_id)
        if found is None:
            return None
        if self.owner is None:
            if not self._warned:
                log.warning("images are not cached: images.internal_project is not set", pool=pool_id)
            self._warned = True
            return None
        place, limits = found
        return {"place": place, "gib": limits.gib, "count": limits.count}

    async def turn(self, operation: Operation) -> None:
        """Until nobody else is about to fill what this operation wants, or for an hour."""
        assert self._db is not None
        place, image = operation.results["place"]["cache"]["place"], operation.args["image"]
        wanted = (place, image["id"], image["version"], operation.id)
        bell, deadline = self._db.new_in_cache, time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            rung = bell.count
            if not await self._db.glance(lambda conn: image_cache.is_filled_by_another(conn, *wanted)):
                return
            # One that ends without a word of it, or whose news were lost, is found by looking.
            await bell.after(rung, _LOOK_S)

    def take(self, conn: Connection, operation: Operation) -> Result | None:
        """`{"hit": VOLUME}`, `{"fill": VOLUME}` of what is to be filled first, `{"busy": True}` while others fill it.

        None: the volume is made of the image itself.
        """
        backing = self._backing(conn, operation)
        if backing is not None:
            return {"hit": backing}
        offer = operation.results["place"].get("cache")
        if offer is None or _was_not_kept(operation):
            return None
        image_cache.hold(conn, offer["place"])
        image, kept = operation.args["image"], []
        for entry in image_cache.of_place(conn, offer["place"]):
            if entry.image_id != image["id"]:
                kept.append(entry)
            elif entry.ready and entry.status == "uploading":
                return None
            elif _fits(entry, image) and operation.attempt("clone") <= _TRIES:
                image_cache.used(conn, entry.volume_id)
                self._tell(conn, operation, "hit", image["id"])
                return {"hit": entry.volume_id}
            elif not entry.ready and entry.version == image["version"] and _at_work(conn, entry):
                return {"busy": True}
            else:
                self._leave(conn, operation, entry)
        return self._room(conn, operation, offer, kept)

    def take_after_all(self, conn: Connection, operation: Operation) -> Result | None:
        """The same after the wait; who finds it busy once more goes without."""
        return self.take(conn, operation) if is_busy(operation) else None

    def _backing(self, conn: Connection, operation: Operation) -> str | None:
        """A volume that is the image's data, where the image's owner is known to own it: a location proves nothing.

        Signed images are never taken from there, since nobody would have verified the bytes.
        """
        image = operation.args.get("image") or {}
        if not image.get("backing") or (image.get("proof") or {}).get("signature") or operation.attempt("clone") > 1:
            return None
        row = volume_row(conn, operation)
        if row.encryption_format is not None:
            return None
        for volume_id in image["backing"]:
            held = volumes.with_any_state(conn, volume_id)
            if held is None or held.deleted or held.status != "available" or held.encryption_format is not None:
                continue
            here = (held.host_id, held.pool_id) == (row.host_id, row.pool_id) and held.size <= row.size
            if here and self._is_owned(conn, held, image["owner"]):
                return volume_id if isinstance(volume_id, str) else None
        return None

    def _is_owned(self, conn: Connection, held: Row[Any], owner: str) -> bool:
        """By the image's owner, or by this site, which has noted for whom."""
        if held.project_id == owner:
            return bool(owner)
        ours = self.owner is not None and held.project_id == self.owner.project_id
        return ours and metadata.read(conn, "volume", held.id).get("image_owner") == owner

    def _room(
        self, conn: Connection, operation: Operation, offer: dict[str, Any], kept: list[Row[Any]]
    ) -> Result | None:
        image, row, limits = operation.args["image"], volume_row(conn, operation), Limits(offer["gib"], offer["count"])
        size = int(image["least"])
        if limits.gib and size > limits.gib:
            return None
        gone = _too_many(kept, size, limits)
        claimed = sizes.claimed_bytes(size, None)
        if gone is None or not claim(conn, row.pool_id, claimed):
            return None
        for entry in gone:
            self._leave(conn, operation, entry)
        assert self.owner is not None
        where = {name: getattr(row, name) for name in PLACE}
        made = enter(
            conn, "volume", "create", id=new_id(), project_id=self.owner.project_id, user_id=self.owner.user_id,
            name=f"image-{image['id']}", size=size, image_id=image["id"], multiattach=False, bootable=False,
            use_quota=False, device_bytes=claimed, **where,
        )  # fmt: skip
        move(conn, "volume", made.id, "download")
        image_cache.add(
            conn, volume_id=made.id, place=offer["place"], image_id=image["id"], version=image["version"], size=size,
            operation_id=operation.id,
        )  # fmt: skip
        self._tell(conn, operation, "miss", image["id"])
        return {"fill": made.id, "size": size, "claimed": claimed, "pool_id": row.pool_id}

    def give_back(self, conn: Connection, operation: Operation) -> None:
        """Undo of both: what was not filled is gone by now."""
        taken = _taken(operation)
        entry = image_cache.get(conn, taken["fill"]) if "fill" in taken else None
        if entry is not None and not entry.ready:
            _forget(conn, taken)

    def keep(self, conn: Connection, operation: Operation) -> Result | None:
        """What was filled is there for all from now on; unverified bytes of a signed image never are."""
        taken, filled = _taken(operation), operation.results["fill"]
        if "fill" not in taken or filled is None:
            return {"dropped": True} if _was_not_kept(operation) else None
        if "refused" in filled:
            log.info("an image is not kept", image=operation.args["image"]["id"], code=filled["refused"])
            _forget(conn, taken)
            return {"dropped": True}
        image, row = operation.args["image"], volume_row(conn, operation)
        verified = bool(filled.get("verified"))
        if (image.get("proof") or {}).get("signature") and not verified:
            raise SignatureNotVerified(host=row.host_id, id=image["id"])
        release(conn, taken["pool_id"], int(taken["claimed"]) - int(filled["device_bytes"]))
        values = {"device_bytes": filled["device_bytes"], "usable_bytes": filled["usable_bytes"]}
        # Where hosts serve it together, another one may have done it.
        values |= {name: getattr(row, name) for name in PLACE}
        move(conn, "volume", taken["fill"], "created", **values)
        image_cache.put(conn, taken["fill"], ready=True, verified=verified)
        return {"ready": True}

    def _leave(self, conn: Connection, operation: Operation, entry: Row[Any]) -> None:
        image_cache.put(conn, entry.volume_id, leaving=True)
        self._tell(conn, operation, "evict", entry.image_id)

    @staticmethod
    def _tell(conn: Connection, operation: Operation, what: str, image_id: str) -> None:
        _told(conn, operation, what, image_id, volume_row(conn, operation))


def image_left(conn: Connection, request_id: str, image_id: str, version: str | None = None) -> None:
    """No volume is made any more of what is kept of the image, but for that `version` of it."""
    for entry in image_cache.of_image(conn, image_id):
        if version is None or entry.version != version:
            image_cache.put(conn, entry.volume_id, leaving=True)
            about = events.Change("volume", entry.volume_id, entry.project_id, entry.user_id, request_id)
            _told(conn, about, "evict", image_id, entry)


def _told(conn: Connection, about: events.About, what: str, image_id: str, row: Row[Any]) -> None:
    host = f"{row.host_id}@{row.backend}#{row.pool}"
    log.info(f"image cache: {what}", image=image_id, pool=host)
    events.record(conn, about, f"image_volume_cache.{what}", {"image_id": image_id, "host": host})


def _taken(operation: Operation) -> Result:
    return operation.results.get("retake") or operation.results.get("cache") or {}


def is_busy(operation: Operation) -> bool:
    """Whether somebody else was filling what this operation wants."""
    return "busy" in (operation.results.get("cache") or {})


def is_hit(operation: Operation) -> bool:
    return "hit" in _taken(operation)


def source(operation: Operation) -> str | None:
    """The cached volume that this one is cloned from; None: it is made of the image itself."""
    taken = _taken(operation)
    if "hit" in taken:
        return str(taken["hit"])
    ready = (operation.results.get("kept") or {}).get("ready")
    return str(taken["fill"]) if ready else None


def fill(login: Login | None) -> Callable[[Connection, Operation], JobCall | None]:
    """The job that fills what `take` has decided on."""

    def call(conn: Connection, operation: Operation) -> JobCall | None:
        taken = _taken(operation)
        if "fill" not in taken or _was_not_kept(operation):
            return None
        row = volume_row(conn, operation)
        job = VolumeFromImage(
            backend=backend_of(row),
            volume_id=taken["fill"],
            size_bytes=sizes.usable_bytes(taken["size"]),
            image=image_source(conn, operation),
        )
        return JobCall(row.host_id, job, late=late_login(operation, login))

    return call


def empty(conn: Connection, operation: Operation) -> JobCall | None:
    """Undo of the fill: what became ready stays, for others."""
    taken = _taken(operation)
    entry = image_cache.get(conn, taken["fill"]) if "fill" in taken else None
    row = volume_row(conn, operation)
    if entry is None or entry.ready or row.host_id is None:
        return None
    return JobCall(row.host_id, VolumeDelete(backend=backend_of(row), volume_id=taken["fill"]))


def verified(operation: Operation) -> bool:
    """Whether the bytes were verified by this very operation."""
    done = operation.results
    return any(bool((done.get(step) or {}).get("verified")) for step in ("fill", "make"))


def _fits(entry: Row[Any], image: dict[str, Any]) -> bool:
    signed = bool((image.get("proof") or {}).get("signature"))
    there = entry.ready and entry.status == "available"
    return bool(there and entry.version == image["version"] and (entry.verified or not signed))


def _at_work(conn: Connection, entry: Row[Any]) -> bool:
    filler = operations.get(conn, entry.operation_id)
    return filler is not None and filler.state in operations.ACTIVE


def _was_not_kept(operation: Operation) -> bool:
    """An earlier attempt of this operation has shown that it is no use."""
    return bool((operation.steps.get("kept", {}).get("result") or {}).get("dropped"))


def _too_many(kept: list[Row[Any]], size: int, limits: Limits) -> list[Row[Any]] | None:
    """What has to leave for one more of that size, the least recently used first; None: not enough can."""
    leaving: list[Row[Any]] = []
    count, total = len(kept) + 1, sum(entry.size for entry in kept) + size
    for entry in [one for one in kept if one.ready] + [None]:
        if (not limits.count or count <= limits.count) and (not limits.gib or total <= limits.gib):
            return leaving
        if entry is not None:
            leaving.append(entry)
            count, total = count - 1, total - entry.size
    return None


def _forget(conn: Connection, taken: dict[str, Any]) -> None:
    unmake(conn, taken["fill"], taken["pool_id"], int(taken["claimed"]))
    image_cache.drop(conn, taken["fill"])


def delete_leaving(conn: Connection, volume_id: str) -> bool:
    """Whether its volume is to be deleted now; one that is gone is forgotten."""
    row = volumes.with_any_state(conn, volume_id)
    if row is None or row.deleted:
        image_cache.drop(conn, volume_id)
        return False
    if row.status in {"creating", "downloading"}:
        entry = image_cache.get(conn, volume_id)
        if entry is None or _at_work(conn, entry):
            return False
        move(conn, "volume", volume_id, "create_failed")
    return bool(row.status != "deleting")
