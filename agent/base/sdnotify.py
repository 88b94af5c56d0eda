"""Telling systemd: ready, stopping, alive. All of it does nothing when systemd did not ask (no NOTIFY_SOCKET)."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable


def notify(state: str) -> bool:
    """Send `state` (`READY=1`, `STATUS=…`, several by lines) to systemd; False when nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.connect(address)
            channel.sendall(state.encode())
        except OSError:
            return False
    return True


def ready(status: str = "") -> bool:
    """Say that the service answers now."""
    return notify(f"READY=1\nSTATUS={status}" if status else "READY=1")


def reloading() -> bool:
    """Say that the configuration is being read again; `ready` ends it."""
    return notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping(status: str = "") -> bool:
    """Say that the service is on its way down."""
    return notify(f"STOPPING=1\nSTATUS={status}" if status else "STOPPING=1")


def watchdog_interval() -> float | None:
    """Seconds between two signs of life (half of what systemd allows), or None when it does not watch us."""
    allowed = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID", "")
    if not allowed.isdecimal() or int(allowed) == 0 or (meant and meant != str(os.getpid())):
        return None
    return int(allowed) / 2_000_000


async def watchdog(stop: asyncio.Event, alive: Callable[[], bool] = lambda: True) -> None:
    """Give signs of life from the event loop until `stop` is set, as long as `alive()` holds.

    Returns at once when systemd does not watch. A hung event loop or a false `alive` gives none, and systemd
    restarts the service.
    """
    interval = watchdog_interval()
    while interval is not None and not stop.is_set():
        if alive():
            notify("WATCHDOG=1")
        try:
            await asyncio.wait_for(stop.wait(), interval)
        except TimeoutError:
            continue
