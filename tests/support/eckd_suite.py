"""What the ECKD connector must do, on a simulated host as on a real DASD: `place` says which, and moves the device.

A module that wants these tests imports them and brings the fixture. They run in this order on one device, unformatted
and ignored at first.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import pytest

from agent.connectors.errors import DetachIncomplete, DeviceMismatch, NotAttached
from agent.connectors.registry import connector
from agent.eckd.errors import DasdAbsent, DasdForeign, DasdUnformatted
from agent.host import ccw
from agent.privsep.errors import DeviceForeign, VerbRefused
from agent.wire.jobs import ChannelDevice, Connection

ABSENT, FORBIDDEN = "0.0.0fff", "0.0.0205"
SIZE = 100 * 15 * 12 * 4096


class Place(Protocol):
    """One DASD of 100 cylinders. `away` and `back` return when the channel has told of it."""

    bus_id: str
    uid: str

    def held(self) -> AbstractContextManager[None]:
        """Somebody has its disk open."""

    async def away(self) -> None: ...

    async def back(self) -> None: ...


def wanted(place: Place, **more: Any) -> Connection:
    bus_id = more.pop("bus_id", place.bus_id)
    channel = ChannelDevice(bus_id=bus_id, layout=more.pop("layout", "ldl"), read_only=more.pop("read_only", False))
    given = {"identity": place.uid, "size_bytes": SIZE} | more
    return Connection(protocol="eckd", target=bus_id, channel=channel, **given)


def forgotten(place: Place) -> bool:
    """It is as it was: offline, and ignored again."""
    return ccw.device(place.bus_id) is None and ccw.is_ignored(place.bus_id)


async def test_unformatted_it_is_only_formatted_when_that_is_ordered(place: Place) -> None:
    with pytest.raises(DasdUnformatted, match="formatting was not ordered"):
        await connector("eckd").attach(wanted(place, layout=None))
    with pytest.raises(DasdUnformatted):
        await connector("eckd").attach(wanted(place, read_only=True))
    with pytest.raises(DasdForeign, match=place.uid):
        await connector("eckd").attach(wanted(place, identity="IBM.750000000ABC1.8000.20"))
    assert forgotten(place)


async def test_attached_present_detached_once_and_again(place: Place) -> None:
    dasd = connector("eckd")
    found = await dasd.attach(wanted(place))
    assert (found.size, found.read_only, found.paths) == (SIZE, False, (found.name,))
    assert dasd.present(wanted(place)) == found
    assert await dasd.attach(wanted(place, layout=None)) == found
    assert await dasd.resize(wanted(place), SIZE) == found
    with pytest.raises(DeviceMismatch, match="does not grow"):
        await dasd.resize(wanted(place), SIZE + 4096)
    assert await dasd.detach(wanted(place))
    assert forgotten(place)
    assert not await dasd.detach(wanted(place))
    with pytest.raises(NotAttached):
        await dasd.resize(wanted(place), SIZE)


async def test_smaller_than_promised_is_not_handed_out(place: Place) -> None:
    with pytest.raises(DeviceMismatch, match="bytes, not"):
        await connector("eckd").attach(wanted(place, size_bytes=SIZE + 4096))
    assert forgotten(place)


async def test_held_by_somebody_it_stays(place: Place) -> None:
    dasd = connector("eckd")
    found = await dasd.attach(wanted(place))
    with place.held(), pytest.raises(DetachIncomplete, match=found.device):
        await dasd.detach(wanted(place), deadline=2)
    assert dasd.present(wanted(place)) == found
    assert await dasd.detach(wanted(place))
    assert forgotten(place)


async def test_read_only(place: Place) -> None:
    kept = await connector("eckd").attach(wanted(place))
    with pytest.raises(DeviceForeign, match="another mode"):
        await connector("eckd").attach(wanted(place, read_only=True))
    assert connector("eckd").present(wanted(place)) == kept
    await connector("eckd").detach(wanted(place))
    found = await connector("eckd").attach(wanted(place, layout=None, read_only=True))
    assert found.read_only
    assert (told := ccw.dasd(place.bus_id)) is not None
    assert told.read_only
    assert await connector("eckd").detach(wanted(place))


async def test_taken_away_it_is_missing_and_given_back_it_is_there(place: Place) -> None:
    dasd = connector("eckd")
    found = await dasd.attach(wanted(place))
    await place.away()
    assert dasd.present(wanted(place)) is None
    await place.back()
    assert dasd.present(wanted(place)) == found
    await place.away()
    assert await dasd.detach(wanted(place))
    await place.back()
    assert (await dasd.attach(wanted(place, layout=None))).size == SIZE
    assert await dasd.detach(wanted(place))


async def test_an_absent_one_and_one_that_root_did_not_name(place: Place) -> None:
    with pytest.raises(DasdAbsent, match="no such device"):
        await connector("eckd").attach(wanted(place, bus_id=ABSENT), deadline=10)
    with pytest.raises(VerbRefused, match="limits"):
        await connector("eckd").attach(wanted(place, bus_id=FORBIDDEN), deadline=1)
