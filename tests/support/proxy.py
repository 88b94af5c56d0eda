"""A TCP relay whose traffic towards the server can be held back and let go later, or cut like a network."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Cut = Literal["both", "answers"]


class Pair:
    """One connection: bytes from `near` (the client) to `far` (the server) and back."""

    def __init__(self, near: socket.socket, far: socket.socket) -> None:
        self.near, self.far = near, far
        self.held: bytes | None = None
        self.near_gone = False
        self.late = False
        self.lost = False
        self.answered_after = 0


class Proxy:
    """Relays to `target`. `hold()` keeps back what clients send on the connections that are open now."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._door.getsockname()[1])
        self._pairs: list[Pair] = []
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._wake_read, self._wake_write = socket.socketpair()
        self._stopping = False
        self._cut: Cut | None = None
        self._unmet: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run)

    def hold(self, quiet: float = 0.5) -> None:
        """Begins when nothing has flowed for `quiet` seconds, so that the connections are idle."""
        with self._changed:
            while self._changed.wait(quiet):
                continue
            for pair in self._pairs:
                pair.held = b""

    def wait_held(self, seconds: float = 10) -> int:
        """Bytes kept back, once there are any."""
        with self._changed:
            self._changed.wait_for(lambda: self._held() > 0, seconds)
            return self._held()

    def release(self, seconds: float = 10) -> int:
        """Deliver what was kept back; returns how many bytes the server answered to it."""
        with self._changed:
            late = [pair for pair in self._pairs if pair.held]
            for pair in late:
                data, pair.held, pair.late = pair.held or b"", None, True
                pair.far.sendall(data)
            self._changed.wait_for(lambda: all(pair.answered_after for pair in late), seconds)
            return sum(pair.answered_after for pair in late)

    def cut(self, what: Cut) -> None:
        """Nothing passes any more, and nobody is told: of `both` directions, or of the `answers` alone."""
        with self._lock:
            self._cut = what

    def mend(self) -> None:
        """Connections that lost bytes are ended, as their time would run out; new ones pass."""
        with self._changed:
            for pair in [pair for pair in self._pairs if pair.lost]:
                self._end(pair)
            for client in self._unmet:
                client.close()
            self._unmet.clear()
            self._cut = None
        self._wake_write.send(b"x")

    def _held(self) -> int:
        return sum(len(pair.held or b"") for pair in self._pairs)

    def _run(self) -> None:
        while not self._stopping:
            with self._lock:
                near = {pair.near: pair for pair in self._pairs if not pair.near_gone}
                far = {pair.far: pair for pair in self._pairs}
            try:
                ready, _, _ = select.select([self._door, self._wake_read, *near, *far], [], [])
            except ValueError:  # one of them was ended meanwhile
                continue
            for one in ready:
                if one is self._wake_read:
                    self._wake_read.recv(64)
                elif one is self._door:
                    self._meet(self._door.accept()[0])
                elif one in near:
                    self._from_client(near[one])
                elif one in far:
                    self._from_server(far[one])

    def _meet(self, client: socket.socket) -> None:
        with self._lock:
            if self._cut == "both":
                self._unmet.append(client)
                return
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()
            return
        with self._lock:
            self._pairs.append(Pair(client, server))

    def _from_client(self, pair: Pair) -> None:
        data = _read(pair.near)
        with self._changed:
            if self._cut == "both" and data:
                pair.lost = True
            elif pair.held is not None:
                pair.held += data
                pair.near_gone = not data
                self._changed.notify_all()
            elif data:
                with suppress(OSError):
                    pair.far.sendall(data)
            else:
                self._end(pair)

    def _from_server(self, pair: Pair) -> None:
        data = _read(pair.far)
        with self._changed:
            if self._cut is not None and data:
                pair.lost = True
                return
            if data and (pair.near_gone or pair.late):
                pair.answered_after += len(data)
            if data and not pair.near_gone:
                with suppress(OSError):
                    pair.near.sendall(data)
            elif not data:
                self._end(pair)
            self._changed.notify_all()

    def _end(self, pair: Pair) -> None:
        if pair in self._pairs:
            self._pairs.remove(pair)
        pair.near.close()
        pair.far.close()

    @contextmanager
    def relaying(self) -> Iterator[Proxy]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stopping = True
            self._wake_write.send(b"x")
            self._thread.join()
            for pair in list(self._pairs):
                self._end(pair)
            for one in (*self._unmet, self._door, self._wake_read, self._wake_write):
                one.close()


def _read(one: socket.socket) -> bytes:
    with suppress(OSError):
        return one.recv(65536)
    return b""
