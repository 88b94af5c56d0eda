"""Uploads, downloads and deletions of images: whole or not at all, whatever breaks in between."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from agent.base.errors import BrickyardError
from agent.wire.jobs import TransferRef
from coordinator.images import catalog
from coordinator.images.catalog import Caller
from coordinator.images.errors import ImageInvalid, ImageNotYours, NoImageData, NoImageStore, NoSuchImage
from coordinator.operations.delete_image import accept_delete
from coordinator.operations.download_image import accept_download
from coordinator.operations.engine import Engine
from coordinator.operations.errors import Cancelled
from coordinator.operations.image_streams import (
    ImageStreams,
    StoreSilent,
    StreamBroken,
    StreamLost,
    TooManyStreams,
    finish,
)
from coordinator.operations.registry import workflows
from coordinator.operations.upload_image import accept_upload
from coordinator.state import messages, operations
from coordinator.state.errors import TransitionRefused
from coordinator.state.operations import Operation
from coordinator.state.tables.fleet import hosts as host_rows
from tests.unit.coordinator.operations.imagesite import OWNER, ImageSite, image_site
from tests.unit.coordinator.operations.support import REQUESTER

DATA = bytes(range(256)) * 40_000


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[ImageSite]:
    async with image_site(tmp_path) as made:
        yield made
        assert made.port._tickets._open == {}, "a ticket was left open"


async def _blocks(data: bytes, error: BaseException | None = None) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 100_000):
        yield data[at : at + 100_000]
    if error is not None:
        raise error


async def upload(
    site: ImageSite, image_id: str, data: bytes = DATA, *, error: BaseException | None = None, size: int | None = None
) -> Operation:
    async def transfer(ref: TransferRef, operation: Operation) -> dict[str, Any]:
        return {"bytes": await site.streams.push(ref, _blocks(data, error))}

    with site.streams.offer(transfer) as stream:

        def accepting(conn: Any) -> tuple[Operation, None]:
            return accept_upload(conn, REQUESTER, OWNER, image_id, stream=stream.name, size=size), None

        operation, _ = await site.engine.submit(accepting)
        return await finish(site.engine, operation, stream, 20)


async def download(site: ImageSite, image_id: str, start: int, stop: int, got: bytearray) -> Operation:
    async def transfer(ref: TransferRef, operation: Operation) -> None:
        async for block in site.streams.pull(ref, start, stop):
            got.extend(block)

    with site.streams.offer(transfer) as stream:  # type: ignore[arg-type]

        def accepting(conn: Any) -> tuple[Operation, None]:
            return accept_download(conn, REQUESTER, OWNER, image_id, stream=stream.name), None

        operation, _ = await site.engine.submit(accepting)
        return await finish(site.engine, operation, stream, 20)


async def delete(site: ImageSite, image_id: str) -> Operation | None:
    operation, _ = await site.engine.submit(
        lambda conn: (accept_delete(conn, REQUESTER, OWNER, image_id)[0], None)
    )  # fmt: skip
    return await site.engine.wait(operation.id, 60)


async def test_what_is_uploaded_is_what_comes_back(site: ImageSite) -> None:
    image_id = site.image()
    await upload(site, image_id, size=len(DATA))
    row = site.db.read_now(lambda conn: catalog.show(conn, OWNER, image_id)).row
    assert (row.status, row.size, row.host_id) == ("active", len(DATA), "host-a")
    assert row.os_hash_value == hashlib.sha256(DATA).hexdigest()
    assert row.checksum == hashlib.md5(DATA).hexdigest()
    assert site.files() == [f"images/{image_id}"]
    for start, stop in ((0, len(DATA)), (1_000_001, 5_000_000), (7, 8)):
        got = bytearray()
        await download(site, image_id, start, stop, got)
        assert bytes(got) == DATA[start:stop]


async def test_an_upload_that_breaks_off_leaves_a_queued_image_and_nothing_else(site: ImageSite) -> None:
    image_id = site.image()
    with pytest.raises(StreamBroken):
        await upload(site, image_id, error=StreamBroken(reason="the client went away"))
    assert (site.status(image_id), site.files()) == ("queued", [])
    with pytest.raises(StreamBroken):
        await upload(site, image_id, error=ConnectionResetError("gone"))
    assert (site.status(image_id), site.files()) == ("queued", [])
    await upload(site, image_id)
    assert site.status(image_id) == "active"


async def test_more_bytes_than_announced_are_refused(site: ImageSite) -> None:
    image_id = site.image()
    with pytest.raises(Exception, match="1000 that were announced"):
        await upload(site, image_id, size=1000)
    assert (site.status(image_id), site.files()) == ("queued", [])


async def test_an_image_refused_by_rule_is_killed_with_a_message(site: ImageSite) -> None:
    image_id = site.image(disk_format="qcow2")
    backing = b"QFI\xfb" + struct.pack(">IQIIQ", 3, 512, 11, 16, 1 << 20) + b"\0" * 4000
    with pytest.raises(Exception) as refused:
        await upload(site, image_id, backing)
    assert (site.status(image_id), site.files()) == ("killed", [])
    told = site.db.read_now(lambda conn: messages.listing(conn, "p1"))
    assert [row.resource_uuid for row in told] == [image_id]
    assert str(refused.value) in told[0].user_message
    ended = await delete(site, image_id)
    assert ended is not None
    assert ended.state == "done"


async def test_a_qcow2_declared_as_raw_is_refused(site: ImageSite) -> None:
    image_id = site.image()
    with pytest.raises(Exception, match="signature of qcow"):
        await upload(site, image_id, b"QFI\xfb" + struct.pack(">I", 3) + b"\0" * 4000)
    assert (site.status(image_id), site.files()) == ("killed", [])


async def test_a_takeover_in_the_middle_of_an_upload_leaves_a_queued_image(site: ImageSite, tmp_path: Path) -> None:
    image_id = site.image()
    arrived = asyncio.Event()

    async def transfer(ref: TransferRef, operation: Operation) -> dict[str, Any]:
        async def endless() -> AsyncIterator[bytes]:
            yield DATA
            arrived.set()
            await asyncio.Event().wait()

        return {"bytes": await site.streams.push(ref, endless())}

    with site.streams.offer(transfer) as stream:
        operation, _ = await site.engine.submit(
            lambda conn: (accept_upload(conn, REQUESTER, OWNER, image_id, stream=stream.name, size=None), None)
        )
        await arrived.wait()
        assert site.status(image_id) == "saving"
        await site.engine.close(0)
        other = ImageStreams(site.db, site.streams._identity)
        successor = Engine(site.db, site.hosts, workflows(site.keys, other), owner="c2", exclusive=True)
        await successor.begin()
        ended = await successor.wait(operation.id, 60)
        await successor.close()
    assert ended is not None
    assert (ended.state, site.status(image_id), site.files()) == ("failed", "queued", [])


async def test_an_upload_can_be_cancelled(site: ImageSite) -> None:
    image_id = site.image()

    async def transfer(ref: TransferRef, operation: Operation) -> dict[str, Any]:
        async def cancelling() -> AsyncIterator[bytes]:
            yield DATA
            await site.engine.cancel(operation.id)
            await asyncio.Event().wait()

        return {"bytes": await site.streams.push(ref, cancelling())}

    with site.streams.offer(transfer) as stream:
        operation, _ = await site.engine.submit(
            lambda conn: (accept_upload(conn, REQUESTER, OWNER, image_id, stream=stream.name, size=None), None)
        )
        with pytest.raises(Cancelled):
            await finish(site.engine, operation, stream, 20)
    assert (site.status(image_id), site.files()) == ("queued", [])


async def test_lost_answers_of_the_host_do_no_harm(site: ImageSite) -> None:
    image_id = site.image()
    site.hosts.wires["host-a"].lose_answers = 2
    await upload(site, image_id)
    site.hosts.wires["host-a"].lose_answers = 1
    ended = await delete(site, image_id)
    assert ended is not None
    assert (ended.state, site.files()) == ("done", [])


async def test_what_can_not_begin_changes_nothing(site: ImageSite) -> None:
    bare = site.image(disk_format=None)
    with pytest.raises(ImageInvalid):
        await upload(site, bare)
    with pytest.raises(NoSuchImage):
        await upload(site, "0" * 8 + "-0000-0000-0000-" + "0" * 12)
    done = site.image()
    await upload(site, done)
    with pytest.raises(TransitionRefused) as again:
        await upload(site, done)
    assert again.value.status == 409
    with pytest.raises(NoImageData):
        await download(site, site.image(), 0, 1, bytearray())
    site.db.write_now(lambda conn: conn.execute(host_rows.update().values(reachable=False)) and None)
    queued = site.image()
    with pytest.raises(NoImageStore):
        await upload(site, queued)
    assert site.status(queued) == "queued"


async def test_a_silent_store_is_told_in_time_and_the_image_is_free_again(site: ImageSite) -> None:
    image_id = site.image()
    site.hosts.wires["host-a"].held = held = asyncio.Event()
    with pytest.raises(StoreSilent, match="host-a"):
        await upload(site, image_id)
    (running,) = site.db.read_now(lambda conn: operations.listing(conn, active=True))
    held.set()
    ended = await site.engine.wait(running.id, 20)
    assert ended is not None
    assert (ended.state, site.status(image_id), site.files()) == ("failed", "queued", [])


async def test_a_defect_in_a_transfer_ends_the_operation(site: ImageSite) -> None:
    image_id = site.image()
    with pytest.raises(BrickyardError, match="ZeroDivisionError"):
        await upload(site, image_id, error=ZeroDivisionError("a defect"))
    assert (site.status(image_id), site.files()) == ("queued", [])


async def test_only_so_many_streams_at_once(site: ImageSite) -> None:
    async def transfer(ref: TransferRef, operation: Operation) -> dict[str, Any]:
        return {}

    offer = site.streams.offer
    with offer(transfer), offer(transfer), offer(transfer), pytest.raises(TooManyStreams), offer(transfer):
        pass
    with site.streams.offer(transfer):
        pass


async def test_one_project_leaves_room_for_others(site: ImageSite) -> None:
    async def transfer(ref: TransferRef, operation: Operation) -> dict[str, Any]:
        return {}

    streams = ImageStreams(site.db, site.streams._identity, limit=4)
    with streams.offer(transfer, "p1"), streams.offer(transfer, "p1"), streams.offer(transfer, "p1"):
        with pytest.raises(TooManyStreams, match="3 uploads and downloads of your project"):
            streams.offer(transfer, "p1").__enter__()
        with streams.offer(transfer, "p2"):
            pass


async def test_a_download_that_loses_its_reader_closes_the_ticket(site: ImageSite) -> None:
    image_id = site.image()
    await upload(site, image_id)

    async def transfer(ref: TransferRef, operation: Operation) -> dict[str, Any]:
        async for _ in site.streams.pull(ref, 0, len(DATA)):
            raise ConnectionResetError("reader gone")
        return {}

    with site.streams.offer(transfer) as stream:
        operation, _ = await site.engine.submit(
            lambda conn: (accept_download(conn, REQUESTER, OWNER, image_id, stream=stream.name), None)
        )
        with pytest.raises(StreamBroken):
            await finish(site.engine, operation, stream, 20)
    assert site.status(image_id) == "active"


async def test_leaving_ends_a_running_stream(site: ImageSite) -> None:
    image_id = site.image()

    async def transfer(ref: TransferRef, operation: Operation) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    with site.streams.offer(transfer) as stream:
        operation, _ = await site.engine.submit(
            lambda conn: (accept_upload(conn, REQUESTER, OWNER, image_id, stream=stream.name, size=None), None)
        )
        await stream.started.wait()
    ended = await site.engine.wait(operation.id, 60)
    assert ended is not None
    assert ended.error is not None
    assert ended.error["code"] == StreamLost.code
    assert site.status(image_id) == "queued"


@pytest.mark.parametrize(("policy", "kept"), [("on_image_deletion", False), ("do_not_delete", True), (None, True)])
async def test_the_secret_goes_with_the_image_when_its_owner_said_so(
    site: ImageSite, policy: str | None, kept: bool
) -> None:
    key = site.db.write_now(
        lambda conn: site.keys.create(conn, project_id="p1", user_id="u", type="passphrase", value=b"x")
    )
    extra = {"os_encrypt_key_deletion_policy": policy} if policy else {}
    image_id = site.image(os_encrypt_key_id=key, **extra)
    await delete(site, image_id)
    assert bool(site.db.read_now(lambda conn: site.keys.listing(conn, "p1"))) is kept
    with pytest.raises(NoSuchImage):
        site.status(image_id)


async def test_a_secret_that_two_images_share_stays_until_the_last(site: ImageSite) -> None:
    key = site.db.write_now(
        lambda conn: site.keys.create(conn, project_id="p1", user_id="u", type="passphrase", value=b"x")
    )
    both = [site.image(os_encrypt_key_id=key, os_encrypt_key_deletion_policy="on_image_deletion") for _ in range(2)]
    await delete(site, both[0])
    assert site.db.read_now(lambda conn: site.keys.listing(conn, "p1"))
    await delete(site, both[1])
    assert not site.db.read_now(lambda conn: site.keys.listing(conn, "p1"))


async def test_only_its_owner_deletes_and_a_repeat_joins(site: ImageSite) -> None:
    image_id = site.image(visibility="community")
    with pytest.raises(ImageNotYours):
        site.db.write_now(lambda conn: accept_delete(conn, REQUESTER, Caller("p2"), image_id))
    await upload(site, image_id)
    site.hosts.wires["host-a"].held = asyncio.Event()
    first, _ = await site.engine.submit(lambda conn: accept_delete(conn, REQUESTER, OWNER, image_id))
    again, fresh = await site.db.write(lambda conn: accept_delete(conn, REQUESTER, OWNER, image_id))
    assert (again.id, fresh) == (first.id, False)
    site.hosts.wires["host-a"].held.set()
    ended = await site.engine.wait(first.id, 20)
    assert ended is not None
    assert (ended.state, site.files()) == ("done", [])
    assert site.db.read_now(lambda conn: conn.execute(select(host_rows.c.id)).all())
