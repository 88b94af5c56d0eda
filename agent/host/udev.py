"""Waiting for a block device's event instead of polling: udev's where udevd runs, else the kernel's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTROL = Path("/run/udev/control")


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a device: `action` (add, change, remove, …), `name` (`loop0`), `diskseq` where told.

    `path` is the device's place below /sys.
    """

    action: str
    name: str
    diskseq: int | None
    path: str = ""
    subsystem: str = "block"

    @classmethod
    def of(cls, action: str, properties: Mapping[str, str]) -> Event:
        number = properties.get("DISKSEQ", "")
        name = properties.get("DEVNAME", "").removeprefix("/dev/")
        path, subsystem = properties.get("DEVPATH", ""), properties.get("SUBSYSTEM", "block")
        return cls(action, name, int(number) if number.isdigit() else None, path, subsystem)


class Events:
    """Events since the subscription, in order. Made by `subscribed()`."""

    def __init__(self, udevd: bool) -> None:
        self._waiting: asyncio.Queue[Event] = asyncio.Queue()
        self.udevd = udevd

    def put(self, event: Event) -> None:
        self._waiting.put_nowait(event)

    def taken(self) -> list[Event]:
        """What has come already, in order, without waiting."""
        found = []
        while not self._waiting.empty():
            found.append(self._waiting.get_nowait())
        return found

    async def wait(self, match: Callable[[Event], bool], deadline: float) -> Event | None:
        """The next matching event; None when `deadline` seconds pass without it."""
        try:
            async with asyncio.timeout(deadline):
                while True:
                    event = await self._waiting.get()
                    if match(event):
                        return event
        except TimeoutError:
            return None


class Source:
    """A socket and all who listen to it: an event is read once, however many wait for theirs."""

    def __init__(self, monitor: Any) -> None:
        self._monitor = monitor
        self.listeners: list[Events] = []

    def receive(self) -> None:
        """Hand out what the socket holds; never blocks."""
        try:
            while (device := self._monitor.poll(timeout=0)) is not None:
                self._hand_out(Event.of(device.action or "", device.properties))
        except OSError:
            # More events than the socket could hold: what was lost is made up for by a look at sysfs.
            self._hand_out(LOST)

    def fileno(self) -> int:
        return int(self._monitor.fileno())

    def _hand_out(self, event: Event) -> None:
        for one in self.listeners:
            one.put(event)


LOST = Event("", "", None)
_mine = threading.local()
_sources: dict[tuple[asyncio.AbstractEventLoop, bool, tuple[str, ...]], Source] = {}


def udevd_runs(control: Path = CONTROL) -> bool:
    return control.exists()


@asynccontextmanager
async def subscribed(control: Path = CONTROL, *, subsystems: Sequence[str] = ("block",)) -> AsyncIterator[Events]:
    """Listen to events of these subsystems from now on: subscribe first, then do what causes them."""
    loop, udevd = asyncio.get_running_loop(), udevd_runs(control)
    key = (loop, udevd, tuple(subsystems))
    source = _sources.get(key)
    if source is None:
        source = _sources[key] = _opened(udevd, subsystems)
        loop.add_reader(source.fileno(), source.receive)
    else:
        source.receive()  # what came until now is not for the new one
    events = Events(udevd)
    source.listeners.append(events)
    try:
        yield events
    finally:
        source.listeners.remove(events)
        if not source.listeners:
            del _sources[key]
            loop.remove_reader(source.fileno())


def _opened(udevd: bool, subsystems: Sequence[str]) -> Source:
    import pyudev

    monitor = pyudev.Monitor.from_netlink(_context(), source="udev" if udevd else "kernel")
    for subsystem in subsystems:
        monitor.filter_by(subsystem)
    monitor.start()
    return Source(monitor)


def _context() -> Any:
    """libudev as this thread alone uses it. Making one starts ldconfig: once for each thread is enough."""
    import pyudev

    if not hasattr(_mine, "context"):
        _mine.context = pyudev.Context()
    return _mine.context


def claimed_by_multipath(name: str) -> bool:
    """Whether udev's rules gave a disk to the multipath daemon, so that only its map may be used."""
    device = _known(name)
    return device is not None and bool(device.properties.get("DM_MULTIPATH_DEVICE_PATH") == "1")


def initialized(name: str) -> bool:
    """Whether udev's database knows a block device, because its rules have ended."""
    device = _known(name)
    return device is not None and bool(device.is_initialized)


def _known(name: str) -> Any:
    import pyudev

    try:
        return pyudev.Devices.from_name(_context(), "block", name)
    except pyudev.DeviceNotFoundError:
        return None


def block_devices() -> tuple[dict[str, str], ...]:
    """The properties of every block device that udev (or, without it, the kernel) knows, by name."""
    listed = _context().list_devices(subsystem="block")
    return tuple(sorted((dict(device.properties) for device in listed), key=lambda found: found.get("DEVNAME", "")))
