"""Events on a message bus, by oslo.messaging. Its modules are loaded where a bus is configured, and only then."""

from __future__ import annotations

import asyncio
import datetime
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from coordinator.notifications import cinder_words
from coordinator.notifications.errors import BusUnusable, MessagingMissing, NotSent
from coordinator.notifications.event import Event
from coordinator.notifications.settings import MESSAGING, MessagingSettings
from coordinator.state.tables.columns import utcnow

_FORMATS = {"messagingv2": 2.0, "messaging": 1.0}


class Bus:
    """See `coordinator.notifications.event.Sink`. Raises MessagingMissing, BusUnusable when it is made.

    The library's `Notifier` logs what could not be sent and goes on; here it must be known. So messages of its form
    are given to its transport.
    """

    name = MESSAGING

    def __init__(self, settings: MessagingSettings) -> None:
        self._settings = settings
        # oslo loads eventlet merely because it is installed, and would then behave differently.
        sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type]
        try:
            from oslo_service import backend

            backend.init_backend(backend.BackendType.THREADING)
            import oslo_messaging
            from oslo_config import cfg
        except (ImportError, ValueError) as error:
            raise MessagingMissing(reason=str(error)) from None
        conf = cfg.ConfigOpts()
        conf([], project="brickyard", default_config_files=[], default_config_dirs=[])
        try:
            self._transport: Any = oslo_messaging.get_notification_transport(conf, url=settings.url())
        except (oslo_messaging.MessagingException, ValueError) as error:
            # The text of the library's errors may hold the address with its password.
            raise BusUnusable(reason=type(error).__name__) from None
        self._target = oslo_messaging.Target
        # A call that hangs can not be ended: it keeps a thread of its own, and no other is begun meanwhile.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bus")
        self._under_way: asyncio.Future[None] | None = None

    def wants(self, event: Event) -> bool:
        return cinder_words.named(event) is not None

    async def send(self, event: Event) -> None:
        name = cinder_words.named(event)
        assert name is not None, "only what is wanted is sent"
        context = {
            "request_id": event.request_id,
            "project_id": event.project_id,
            "tenant": event.project_id,
            "user_id": event.payload.get("user_id"),
        }
        key = f"brickyard:{event.resource_id}:{event.type}:{event.position}"
        body = cinder_words.payload(event)
        await self._put(context, {**_form(key, event.at, body), "event_type": name[0], "publisher_id": name[1]})

    async def say(self, event_type: str, publisher: str, payload: dict[str, Any]) -> None:
        """Something that is no event: how things are. Raises NotSent."""
        now = utcnow()
        form = _form(f"brickyard:{event_type}:{payload}:{now}", now, payload)
        await self._put({}, {**form, "event_type": event_type, "publisher_id": publisher})

    async def _put(self, context: dict[str, Any], message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                while self._under_way is not None and not self._under_way.done():
                    await asyncio.wait({self._under_way})
                work = asyncio.get_running_loop().run_in_executor(self._thread, self._notify, context, message)
                work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
                self._under_way = work
                await asyncio.shield(work)
        except TimeoutError:
            reason = f"it took longer than {self._settings.timeout_s:g} s"
            raise NotSent(receiver=self.name, reason=reason) from None
        except Exception as error:  # noqa: BLE001 - each kind of bus has failures of its own
            raise NotSent(receiver=self.name, reason=type(error).__name__) from None

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._transport.cleanup)

    def _notify(self, context: dict[str, Any], message: dict[str, Any]) -> None:
        priority = "ERROR" if message["event_type"].endswith(".error") else "INFO"
        for topic in self._settings.topics:
            self._transport._send_notification(
                self._target(topic=f"{topic}.{priority.lower()}"), context, {**message, "priority": priority},
                version=_FORMATS[self._settings.driver], retry=0,
            )  # fmt: skip


def _form(key: str, at: datetime.datetime, payload: dict[str, Any]) -> dict[str, Any]:
    return {"message_id": str(uuid5(NAMESPACE_URL, key)), "timestamp": at.isoformat(sep=" "), "payload": payload}
