"""The ECKD connector: a DASD of IBM Z, named by its bus id, proven by its unique id.

A device that the system was started to ignore is ignored again after the detach; formatting needs the order's word.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from weakref import WeakValueDictionary

from agent.connectors.base import DEADLINE, RemoteDevice
from agent.connectors.errors import DetachIncomplete, DeviceMismatch, NotAttached
from agent.eckd import attach as eckd
from agent.eckd.attach import Order
from agent.eckd.errors import DasdAbsent
from agent.host import ccw, sysfs
from agent.privsep.errors import DeviceHeld, KernelRefused
from agent.wire.jobs import Connection


class EckdConnector:
    """See `agent.connectors.base.Connector`. `Connection.channel` says which device and whether to format it."""

    protocol = "eckd"

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def attach(
        self, connection: Connection, *, secret: bytes | None = None, deadline: float = DEADLINE
    ) -> RemoteDevice:
        channel = connection.channel
        if channel is None:
            raise DeviceMismatch(device=connection.target, attachment=connection.target, reason="no bus id was given")
        order = Order(channel.bus_id, channel.read_only, channel.layout, connection.identity)
        async with self._lock(channel.bus_id):
            taken = await eckd.attach(order, deadline=deadline)
            if connection.size_bytes and taken.size < connection.size_bytes:
                await eckd.detach(order.bus_id, ignored=taken.ignored, deadline=deadline)
                reason = f"it has {taken.size} bytes, not {connection.size_bytes}"
                raise DeviceMismatch(device=taken.device, attachment=connection.target, reason=reason)
        name = taken.device.removeprefix("/dev/")
        return RemoteDevice(name, taken.size, taken.diskseq, channel.read_only, (name,))

    async def detach(self, connection: Connection, *, deadline: float = DEADLINE) -> bool:
        bus_id = _bus_id(connection)
        async with self._lock(bus_id):
            try:
                return await eckd.detach(bus_id, ignored=ccw.ignored_at_start(bus_id), deadline=deadline)
            except (DeviceHeld, KernelRefused, DasdAbsent) as error:
                dasd = ccw.dasd(bus_id)
                left = dasd.device or bus_id if dasd is not None else bus_id
                raise DetachIncomplete(attachment=connection.target, left=left, reason=str(error)) from error

    async def resize(self, connection: Connection, size: int) -> RemoteDevice:
        """A DASD that was made larger shows it only after it was offline: what is there now is told, or refused."""
        found = self.present(connection)
        if found is None:
            raise NotAttached(noun="device of", id=connection.target, attachment=connection.target)
        if found.size < size:
            reason = f"it has {found.size} bytes, not {size}; a DASD that is online does not grow"
            raise DeviceMismatch(device=found.device, attachment=connection.target, reason=reason)
        return found

    def present(self, connection: Connection, sys: Path = sysfs.SYS) -> RemoteDevice | None:
        bus_id = _bus_id(connection)
        dasd = ccw.dasd(bus_id)
        if dasd is None or eckd.state_of(bus_id, connection.identity):
            return None
        return RemoteDevice(dasd.disk, dasd.size, dasd.diskseq, dasd.read_only, (dasd.disk,))

    def _lock(self, bus_id: str) -> asyncio.Lock:
        found = self._locks.get(bus_id)
        if found is None:
            found = self._locks[bus_id] = asyncio.Lock()
        return found


def _bus_id(connection: Connection) -> str:
    return connection.channel.bus_id if connection.channel is not None else connection.target


CONNECTOR = EckdConnector()
