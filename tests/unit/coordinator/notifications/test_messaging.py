"""Cinder's notifications on a bus: received by a listener of oslo.messaging, over its drivers that need no server."""

from __future__ import annotations

import asyncio
import datetime
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from coordinator.notifications.errors import BusUnusable, NotSent
from coordinator.notifications.event import Event
from coordinator.notifications.messaging import Bus
from coordinator.notifications.settings import MessagingSettings

VOLUME = {
    "id": "v1", "name": "data", "size": 3, "status": "available", "availability_zone": "nova", "volume_type_id": "t1",
    "snapshot_id": None, "source_volid": None, "image_id": None, "bootable": False, "multiattach": False,
    "created_at": "2026-11-25T10:00:00", "launched_at": None, "user_id": "u1", "host": "host-a@files#files",
    "encrypted": False, "metadata": {"a": "b"},
}  # fmt: skip
SNAPSHOT = {"id": "s1", "name": "snap", "volume_id": "v1", "volume_size": 3, "status": "available",
            "created_at": "2026-11-25T10:00:00", "user_id": "u1", "metadata": {}}  # fmt: skip
ATTACHMENT = {"id": "a1", "volume_id": "v1", "instance_id": "i1", "attached_host": "c1", "attach_mode": "rw",
              "attach_status": "attached", "owner": "compute", "mountpoint": "/dev/vdb"}  # fmt: skip
_TOLD = ("context", "publisher", "type", "payload", "meta")
URLS = ("fake://", "kombu+memory://")


def event(type: str, resource: str = "volume", **payload: Any) -> Event:
    at = datetime.datetime(2026, 11, 25, 10, 0, 1)
    return Event(7, at, type, resource, "v1", "p1", "req-1", {"user_id": "u1", **payload})


@pytest.fixture(params=URLS)
def bus(request: pytest.FixtureRequest) -> Iterator[tuple[Bus, queue.Queue[dict[str, Any]]]]:
    made = Bus(MessagingSettings(transport_url=request.param, timeout_s=20))
    import oslo_messaging
    from oslo_config import cfg

    got: queue.Queue[dict[str, Any]] = queue.Queue()

    class Endpoint:
        def _take(self, priority: str, *told: Any) -> None:
            got.put({"priority": priority, **dict(zip(_TOLD, told, strict=True))})

        def info(self, *args: Any) -> None:
            self._take("info", *args)

        def error(self, *args: Any) -> None:
            self._take("error", *args)

    conf = cfg.ConfigOpts()
    conf([], project="test", default_config_files=[], default_config_dirs=[])
    transport = oslo_messaging.get_notification_transport(conf, url=request.param)
    targets = [oslo_messaging.Target(topic="notifications")]
    listener = oslo_messaging.get_notification_listener(transport, targets, [Endpoint()], executor="threading")
    listener.start()
    yield made, got
    listener.stop()
    listener.wait()
    asyncio.run(made.close())


def test_a_volume_that_was_made(bus: tuple[Bus, queue.Queue[dict[str, Any]]]) -> None:
    asyncio.run(bus[0].send(event("create_volume.end", volume=VOLUME)))
    found = bus[1].get(timeout=60)
    assert (found["type"], found["publisher"], found["priority"]) == (
        "volume.create.end", "volume.host-a@files#files", "info",
    )  # fmt: skip
    body = found["payload"]
    assert {key: body[key] for key in ("tenant_id", "volume_id", "size", "status", "display_name", "metadata")} == {
        "tenant_id": "p1", "volume_id": "v1", "size": 3, "status": "available", "display_name": "data",
        "metadata": {"a": "b"},
    }  # fmt: skip
    assert found["context"]["request_id"] == "req-1"
    assert found["meta"]["timestamp"] == "2026-11-25 10:00:01"


def test_others_and_failures(bus: tuple[Bus, queue.Queue[dict[str, Any]]]) -> None:
    failed = {"code": "backend.full", "message": "There is no room."}
    asyncio.run(bus[0].send(event("create_volume.error", volume=VOLUME, error=failed)))
    found = bus[1].get(timeout=60)
    assert (found["type"], found["priority"], found["payload"]["fail_reason"]) == (
        "volume.create.error", "error", "There is no room.",
    )  # fmt: skip
    asyncio.run(bus[0].send(event("create_snapshot.start", "snapshot", snapshot=SNAPSHOT, volume=VOLUME)))
    found = bus[1].get(timeout=60)
    assert (found["type"], found["publisher"]) == ("snapshot.create.start", "snapshot.host-a@files#files")
    assert (found["payload"]["snapshot_id"], found["payload"]["volume_size"]) == ("s1", 3)
    asyncio.run(bus[0].send(event("attach_volume.end", "attachment", attachment=ATTACHMENT, volume=VOLUME)))
    found = bus[1].get(timeout=60)
    assert found["type"] == "volume.attach.end"
    assert found["payload"]["volume_attachment"][0]["instance_uuid"] == "i1"


def test_what_cinder_has_no_word_for_is_not_sent() -> None:
    made = Bus(MessagingSettings(transport_url="fake://"))
    assert not made.wants(event("upload_image.end"))
    assert not made.wants(event("create_volume.attention"))
    assert made.wants(event("extend_volume.start"))


def test_a_bus_that_is_away_is_known_to_be() -> None:
    made = Bus(MessagingSettings(transport_url="rabbit://127.0.0.1:9/", timeout_s=20))
    with pytest.raises(NotSent):
        asyncio.run(made.send(event("create_volume.end", volume=VOLUME)))


def test_a_bus_that_hangs_holds_one_thread_and_is_asked_again_when_it_is_back() -> None:
    made, calls = Bus(MessagingSettings(transport_url="fake://", timeout_s=0.05)), []
    begun, back = threading.Event(), threading.Event()

    def hangs(*told: Any) -> None:
        calls.append(told)
        begun.set()
        assert back.wait(60)

    async def send() -> None:
        made._notify = hangs  # type: ignore[method-assign]
        for _ in range(3):
            with pytest.raises(NotSent, match="longer than"):
                await made.send(event("create_volume.end", volume=VOLUME))
        assert await asyncio.to_thread(begun.wait, 60)
        assert len(calls) == 1
        back.set()
        made._settings = MessagingSettings(transport_url="fake://", timeout_s=60)
        await made.send(event("create_volume.end", volume=VOLUME))
        assert len(calls) == 2
        await made.close()

    asyncio.run(send())


def test_eventlet_stays_out() -> None:
    here = "from tests.unit.coordinator.notifications.test_messaging import Bus, MessagingSettings, sys"
    code = f"{here}; Bus(MessagingSettings(transport_url='kombu+memory://')); assert not sys.modules['eventlet']"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_address_that_is_none() -> None:
    with pytest.raises(BusUnusable):
        Bus(MessagingSettings(transport_url="pigeon://loft"))
