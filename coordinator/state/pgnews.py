"""News by LISTEN and NOTIFY: one connection that listens, one that tells what has gathered meanwhile.

Telling is apart from the transactions that it tells of: at each commit that notifies PostgreSQL lets only one pass.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy.engine import URL

from agent.base.log import get_logger
from coordinator.state.news import Heard

log = get_logger(__name__)
_CHANNEL = "brickyard"
_MOST_WAITING = 10_000
_AT_ONCE = 100
_AGAIN_S = 2.0


class PgNews:
    """See `coordinator.state.news.News`."""

    def __init__(self, url: URL, options: Mapping[str, Any]) -> None:
        self._arguments = {**url.translate_connect_args(username="user", database="dbname"), **url.query, **options}
        self._origin = secrets.token_hex(4)
        self._followers: dict[str, list[Heard]] = {}
        self._waiting: dict[tuple[str, str], None] = {}
        self._filled = threading.Condition()
        self._closed = threading.Event()
        self._wake, self._waker = os.pipe2(os.O_CLOEXEC)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for name, work in (("db-listen", self._listen), ("db-tell", self._tell)):
            thread = threading.Thread(target=self._always, args=(work,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def tell(self, topic: str, key: str = "") -> None:
        with self._filled:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting[topic, key] = None
                self._filled.notify()

    def follow(self, topic: str, heard: Heard) -> None:
        self._followers.setdefault(topic, []).append(heard)

    def close(self) -> None:
        if self._closed.is_set():
            return
        self._closed.set()
        os.write(self._waker, b".")
        with self._filled:
            self._filled.notify()
        for thread in self._threads:
            thread.join(10)
        os.close(self._wake)
        os.close(self._waker)

    def _always(self, work: Any) -> None:
        """The server may go away and come back: hints are lost meanwhile, those who wait look by themselves too."""
        import psycopg

        while not self._closed.is_set():
            try:
                with psycopg.connect(**self._arguments, autocommit=True) as conn:
                    work(conn)
            except psycopg.Error as error:
                if not self._closed.is_set():
                    log.warning("no news between coordinators just now", reason=str(error).splitlines()[:1])
                self._closed.wait(_AGAIN_S)

    def _listen(self, conn: Any) -> None:
        conn.execute(f"LISTEN {_CHANNEL}")
        ready = select.poll()
        ready.register(conn.fileno(), select.POLLIN)
        ready.register(self._wake, select.POLLIN)
        while not self._closed.is_set():
            ready.poll()
            for notice in conn.notifies(timeout=0):
                with suppress(ValueError):
                    self._deliver(json.loads(notice.payload))

    def _deliver(self, message: Any) -> None:
        origin, items = message
        if origin == self._origin:
            return
        for topic, key in items:
            for heard in self._followers.get(topic, []):
                # The loop that it wakes may be closed already.
                with suppress(RuntimeError):
                    heard(key)

    def _tell(self, conn: Any) -> None:
        conn.execute("SET synchronous_commit = off")  # hints need not wait for the disk
        while True:
            with self._filled:
                self._filled.wait_for(lambda: bool(self._waiting) or self._closed.is_set())
                items = list(self._waiting)[:_AT_ONCE]
                if not items:
                    return
                for item in items:
                    del self._waiting[item]
            conn.execute("SELECT pg_notify(%s, %s)", (_CHANNEL, json.dumps([self._origin, items])))
