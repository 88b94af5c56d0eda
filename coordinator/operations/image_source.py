"""An image as a job is told of it: kept by a host of the site, or by a service outside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy import Connection

from agent.base.errors import Permanent, Temporary
from agent.wire.jobs import (
    Checksum,
    HttpSource,
    ImageSource,
    Signature,
    TransferClose,
    TransferOpen,
    TransferRef,
    WireSecret,
)
from coordinator.operations.volume_calls import volume_row
from coordinator.operations.workflow import JobCall
from coordinator.state import enrolment
from coordinator.state.operations import Operation

# The host that keeps the image was started anew and knows the ticket no more: a fresh one is opened.
TICKET_LOST = frozenset({"transfer.unknown"})
Login = Callable[[], Awaitable[str]]
"""This site's own login at the image service; it may have to be asked for."""


class ImageHostAway(Temporary):
    code = "volume.image-host-away"
    retry_after = 5.0
    sentence = "The host {host}, which keeps image {image}, is not enrolled."


class NoImageService(Permanent):
    code = "images.no-service"
    sentence = "The image is kept by a service that this coordinator is not configured for."
    hint = "Configure [images.glance] alike on every coordinator of the site."


def late_login(operation: Operation, login: Login | None) -> Callable[[], Awaitable[Mapping[str, WireSecret]]] | None:
    """What fetches the login that the job shows to the image service; None where it shows none."""
    image = operation.args.get("image")
    return token_of(login) if image is not None and image.get("needs_login") else None


def token_of(login: Login | None) -> Callable[[], Awaitable[Mapping[str, WireSecret]]]:
    """The secret `token` of a job that talks with the image service."""

    async def fetch() -> Mapping[str, WireSecret]:
        if login is None:
            raise NoImageService
        return {"token": WireSecret.of("opaque", (await login()).encode())}

    return fetch


def _remote_image(conn: Connection, operation: Operation) -> dict[str, Any] | None:
    image: dict[str, Any] | None = operation.args.get("image")
    if image is None or image.get("url") or image["host_id"] == volume_row(conn, operation).host_id:
        return None
    return image


def open_image(conn: Connection, operation: Operation) -> JobCall | None:
    image = _remote_image(conn, operation)
    if image is None:
        return None
    peer = f"host:{volume_row(conn, operation).host_id}"
    return JobCall(image["host_id"], TransferOpen(image_id=image["id"], direction="read", peer=peer))


def close_image(conn: Connection, operation: Operation) -> JobCall | None:
    opened = operation.results.get("open_image")
    image = _remote_image(conn, operation)
    if not opened or image is None:
        return None
    return JobCall(image["host_id"], TransferClose(name=opened["name"]))


def image_source(conn: Connection, operation: Operation) -> ImageSource:
    image = operation.args["image"]
    opened = operation.results.get("open_image")
    transfer = None
    if opened is not None:
        host = enrolment.host(conn, image["host_id"])
        if host is None:
            raise ImageHostAway(host=image["host_id"], image=image["id"])
        transfer = TransferRef(host=host.name, address=host.address, port=opened["port"], name=opened["name"])
    checksum = Checksum(algorithm="sha256", value=image["sha256"]) if image.get("sha256") else None
    http, proof = None, image.get("proof") or {}
    if image.get("url"):
        http = HttpSource(urls=(f"{image['url']}/file",), token=bool(image.get("needs_login")), site=True)
    if image.get("digest"):
        checksum = Checksum(algorithm=image["digest"][0], value=image["digest"][1])
    return ImageSource(
        image_id=image["id"],
        disk_format=image["disk_format"],
        container_format=image["container_format"],
        size_bytes=image["size"],
        checksum=checksum,
        encrypted=image["encrypted"],
        decrypt_size=image["decrypt_size"],
        transfer=transfer,
        http=http,
        signature=Signature(**proof["signature"]) if proof.get("signature") else None,
    )
