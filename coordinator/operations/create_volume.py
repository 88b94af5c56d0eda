"""create_volume: place, open the image's ticket, make on the host, close the ticket.

An image that fails its proof is not fetched, or never becomes a volume. What a host can not make is made elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError
from agent.wire.jobs import (
    JobArgs,
    VolumeClone,
    VolumeCreate,
    VolumeFromImage,
    WireSecret,
)
from coordinator.images.errors import SignatureNotVerified
from coordinator.keys.store import KeyStore
from coordinator.operations import elsewhere, fitting, hints, members, sizes
from coordinator.operations.image_cache import (
    NOT_KEPT,
    SOURCE_GONE,
    ImageCache,
    empty,
    fill,
    is_busy,
    is_hit,
    source,
    verified,
)
from coordinator.operations.image_source import (
    TICKET_LOST,
    Login,
    close_image,
    image_source,
    late_login,
    open_image,
)
from coordinator.operations.signatures import refusal, verdict
from coordinator.operations.volume_calls import delete_call, key_secret, luks_format, volume_row, volume_secret
from coordinator.operations.workflow import JobCall, JobStep, LocalStep, Result, WaitStep, Workflow
from coordinator.scheduler.claims import release
from coordinator.scheduler.placement import Scheduler
from coordinator.state import messages, volumes
from coordinator.state.operations import Operation
from coordinator.state.tables.columns import utcnow
from coordinator.state.transition import move, move_if
from coordinator.state.volumes import backend_of


def workflow(
    keys: KeyStore, scheduler: Scheduler, login: Login | None = None, cache: ImageCache | None = None
) -> Workflow:
    """Version 2 of the workflow: what is said of an image is proven, and what is cached of it is cloned."""
    before, cache = workflow_v1(keys, scheduler, login), cache or ImageCache()
    _, _, make, close = before.steps
    assert isinstance(make, JobStep)
    from_image = make.call

    def place(conn: Connection, operation: Operation) -> Result:
        placed = _place(conn, scheduler, operation)
        offer = cache.offered(conn, operation, placed["pool_id"])
        return placed if offer is None else {**placed, "cache": offer}

    def opened(conn: Connection, operation: Operation) -> JobCall | None:
        return None if source(operation) else open_image(conn, operation)

    def make_unless_cloned(conn: Connection, operation: Operation) -> JobCall | None:
        return None if operation.results.get("clone") else from_image(conn, operation)

    return replace(
        before,
        version=2,
        steps=(
            LocalStep("admit", _admit),
            LocalStep("place", place, undo=_unplace),
            LocalStep("cache", cache.take, undo=cache.give_back),
            WaitStep("turn", cache.turn, needed=is_busy),
            LocalStep("retake", cache.take_after_all, undo=cache.give_back),
            JobStep("open_image", opened, undo=close_image),
            JobStep("fill", fill(login), undo=empty, retry_from="open_image", again_on=TICKET_LOST, answers=NOT_KEPT,
                    elsewhere="place"),
            LocalStep("kept", cache.keep),
            JobStep("clone", _clone_cached, undo=_unclone, retry_from="cache", again_on=SOURCE_GONE, elsewhere="place"),
            replace(make, call=make_unless_cloned),
            LocalStep("proven", _proven),
            close,
        ),
    )  # fmt: skip


def _clone_cached(conn: Connection, operation: Operation) -> JobCall | None:
    cached, row = source(operation), volume_row(conn, operation)
    if cached is None:
        return None
    size = sizes.usable_bytes(row.size)
    job = VolumeClone(backend=backend_of(row), volume_id=row.id, size_bytes=size, source_volume_id=cached)
    return JobCall(row.host_id, job)


def _unclone(conn: Connection, operation: Operation) -> JobCall | None:
    return delete_call(conn, operation) if source(operation) else None


def workflow_v1(keys: KeyStore, scheduler: Scheduler, login: Login | None = None) -> Workflow:
    """Version 1 of the workflow."""

    def place(conn: Connection, operation: Operation) -> Result:
        return _place(conn, scheduler, operation)

    def make(conn: Connection, operation: Operation) -> JobCall | None:
        row = volume_row(conn, operation)
        secrets = volume_secret(conn, keys, row)
        if (operation.args.get("image") or {}).get("encrypted"):
            secrets["image"] = _image_secret(secrets)
        if "source_key_id" in operation.args:
            secrets["source"] = key_secret(conn, keys, operation.args["source_key_id"])
        return JobCall(row.host_id, _make_args(conn, operation, row), secrets, late=late_login(operation, login))

    def finished(conn: Connection, operation: Operation) -> None:
        _settle_keys(conn, keys, operation)
        _finished(conn, operation)

    def failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
        if "source_key_id" in operation.args:
            keys.delete(conn, operation.args["source_key_id"])
        move_if(conn, "volume", operation.resource_id, "create_failed", attention=str(error))
        messages.record(conn, operation, error)

    return Workflow(
        kind="create_volume",
        version=1,
        steps=(
            LocalStep("place", place, undo=_unplace),
            JobStep("open_image", open_image, undo=close_image),
            JobStep(
                "make",
                make,
                undo=delete_call,
                retry_from="open_image",
                again_on=TICKET_LOST,
                elsewhere="place",
            ),
            JobStep("close_image", close_image, gone_is_done=True),
        ),
        finished=finished,
        failed=failed,
        attention=needs_attention,
        together=_from_nothing,
        at_once=lambda operation: _from_nothing(operation, "hints") and scheduler.is_quick(),
        anew=lambda conn, operation, error: elsewhere.anew(conn, operation, error, scheduler.attempts),
    )


def _from_nothing(operation: Operation, *more: str) -> bool:
    return not operation.args.keys() & {"image", "origin_id", *more}


def _admit(conn: Connection, operation: Operation) -> None:
    refused = refusal(operation.args.get("image") or {})
    if refused is not None:
        raise refused


def _proven(conn: Connection, operation: Operation) -> None:
    """An agent of an older release passes over a signature that it is told of."""
    image = operation.args.get("image") or {}
    signed = (image.get("proof") or {}).get("signature")
    # What is found in the cache was verified when it came there.
    if signed and not is_hit(operation) and not verified(operation):
        raise SignatureNotVerified(host=operation.results["place"]["host_id"], id=image["id"])


def needs_attention(conn: Connection, operation: Operation, reason: str) -> None:
    """Mark the volume; it stays in error until it was looked at."""
    move_if(conn, "volume", operation.resource_id, "create_failed")
    volumes.set_values(conn, operation.resource_id, attention=reason)


def _place(conn: Connection, scheduler: Scheduler, operation: Operation) -> Result:
    row = volume_row(conn, operation)
    claimed = sizes.claimed_bytes(row.size, row.encryption_format)
    request = replace(
        fitting.about(conn, row, "create_volume", claimed, type_id=row.volume_type_id),
        availability_zone=operation.args.get("az"),
        pool_id=operation.args.get("pool_id"),
        hints=hints.resolved(conn, row.project_id, operation.args.get("hints") or {}),
        refused=elsewhere.tried(operation),
    )
    chosen = scheduler.place(conn, request)
    where = members.spread(conn, chosen, row.id, fixed=request.pool_id is not None)
    if operation.args.get("image"):
        move_if(conn, "volume", row.id, "download")
    volumes.set_values(conn, row.id, device_bytes=claimed, availability_zone=chosen.availability_zone, **where)
    return {**where, "claimed": claimed}


def _unplace(conn: Connection, operation: Operation) -> None:
    placed = operation.results.get("place") or {}
    release(conn, placed.get("pool_id"), int(placed.get("claimed", 0)))
    nowhere: dict[str, Any] = dict.fromkeys(("host_id", "backend", "pool", "pool_id", "cluster_name", "device_bytes"))
    volumes.set_values(conn, operation.resource_id, **nowhere)


def _make_args(conn: Connection, operation: Operation, row: Row[Any]) -> JobArgs:
    usable = sizes.usable_bytes(row.size)
    encryption = luks_format(row)
    common: dict[str, Any] = {"backend": backend_of(row), "volume_id": row.id, "size_bytes": usable}
    if row.image_id is not None:
        return VolumeFromImage(**common, image=image_source(conn, operation), encryption=encryption)
    if row.snapshot_id is not None or row.source_volid is not None:
        source = {"source_snapshot_id": row.snapshot_id} if row.snapshot_id else {"source_volume_id": row.source_volid}
        rekey = "source_key_id" in operation.args
        return VolumeClone(**common, **source, encrypted=encryption is not None, rekey=rekey)
    return VolumeCreate(**common, encryption=encryption)


def _image_secret(secrets: dict[str, WireSecret]) -> WireSecret:
    """The volume's secret is a clone of the image's: it opens both, even when the image's own is gone by now."""
    return secrets["volume"]


def _settle_keys(conn: Connection, keys: KeyStore, operation: Operation) -> None:
    """Of the volume's new key and the copy of its source's only the one stays that opens the volume.

    An agent of an older release leaves the source's key in the header.
    """
    copied = operation.args.get("source_key_id")
    if copied is None:
        return
    row = volume_row(conn, operation)
    if not operation.results["make"].get("rekeyed"):
        volumes.set_values(conn, row.id, encryption_key_id=copied)
        copied = row.encryption_key_id
    keys.delete(conn, copied)


def _finished(conn: Connection, operation: Operation) -> None:
    made = operation.results.get("clone") or operation.results["make"]
    volume_id = operation.resource_id
    placed = operation.results["place"]
    release(conn, placed["pool_id"], int(placed["claimed"]) - int(made["device_bytes"]))
    image = operation.args.get("image")
    values: dict[str, Any] = {"device_bytes": made["device_bytes"], "usable_bytes": made["usable_bytes"]}
    origin = operation.args.get("origin_id")
    if image is not None:
        said = verdict(image, verified=verified(operation))
        volumes.put_image_metadata(conn, volume_id, {**image["properties"], **said})
        values["bootable"] = True
    elif origin is not None:
        volumes.copy_image_metadata(conn, origin, volume_id)
        parent = volumes.with_any_state(conn, origin)
        values["bootable"] = bool(parent is not None and parent.bootable)
    move(conn, "volume", volume_id, "created", attention=None, launched_at=utcnow(), **values)
