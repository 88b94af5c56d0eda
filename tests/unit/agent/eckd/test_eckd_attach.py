"""The life of a DASD on the simulated host: each step, and each way in which it may be refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from agent.eckd import attach as eckd
from agent.eckd.attach import Order
from agent.eckd.errors import DasdAbsent, DasdForeign, DasdUnformatted, FormatFailed
from agent.host import ccw
from agent.host.simulated_z import SimulatedDasd, SimulatedZ
from agent.privsep.errors import DeviceHeld, NotOnThisPlatform, VerbRefused

A, B = "0.0.0120", "0.0.0121"
UID_A = "SIM.750000000001.0120.20"
CDL = Order(A, format="cdl", uid=UID_A)


def _online(z: SimulatedZ) -> list[str]:
    return [one.bus_id for one in ccw.dasds() if one.online]


async def test_from_the_ignore_list_to_a_disk_and_back(z: SimulatedZ) -> None:
    taken = await eckd.attach(Order(B), deadline=5)
    assert (taken.device, taken.uid, taken.ignored) == ("/dev/dasda", "SIM.750000000001.0120.21", True)
    assert taken.size == 100 * 15 * 12 * 4096
    assert eckd.state_of(B, taken.uid) == ""
    assert await eckd.detach(B, ignored=taken.ignored, deadline=5)
    assert ccw.device(B) is None
    assert ccw.is_ignored(B)


async def test_formatted_only_when_unformatted_and_ordered(z: SimulatedZ) -> None:
    with pytest.raises(DasdUnformatted, match="formatting was not ordered"):
        await eckd.attach(Order(A), deadline=5)
    assert _online(z) == []
    seen: list[tuple[int, int]] = []
    taken = await eckd.attach(CDL, deadline=5, progress=lambda done, total: seen.append((done, total)))
    assert taken.size > 0
    assert seen[-1] == (100, 100)
    await eckd.detach(A, deadline=5)
    z.kernel.root.joinpath("unformattable").touch()  # a second formatting would now fail
    assert (await eckd.attach(CDL, deadline=5)).size == taken.size


async def test_read_only_is_never_formatted_and_set_before_it_is_online(z: SimulatedZ) -> None:
    with pytest.raises(DasdUnformatted):
        await eckd.attach(replace(CDL, read_only=True), deadline=5)
    await eckd.attach(Order(B, read_only=True), deadline=5)
    writes = [(place.rsplit("/", 1)[1], text) for place, text in z.kernel.writes if B in place]
    assert writes == [("readonly", "1"), ("online", "1")]


async def test_a_failed_formatting_is_told_and_leaves_the_device_offline(z: SimulatedZ) -> None:
    z.kernel.root.joinpath("unformattable").touch()
    with pytest.raises(FormatFailed, match="ioctl call to format"):
        await eckd.attach(CDL, deadline=5)
    assert _online(z) == []


async def test_formatting_waits_for_udev_to_let_go(z: SimulatedZ) -> None:
    z.kernel.root.joinpath("held").touch()  # until dasdfmt has seen it once
    assert (await eckd.attach(CDL, deadline=5)).size > 0
    assert not z.kernel.root.joinpath("held").exists()


async def test_another_device_than_promised_is_never_handed_out_nor_formatted(z: SimulatedZ) -> None:
    with pytest.raises(DasdForeign, match=UID_A):
        await eckd.attach(Order(A, format="cdl", uid="IBM.750000000ABC1.8000.20"), deadline=5)
    assert _online(z) == []
    assert not z.dasds[A].formatted


async def test_absent_taken_away_and_not_allowed(z: SimulatedZ) -> None:
    z.kernel.put("proc/cio_ignore", f"{A}-{B}\n0.0.9999")
    with pytest.raises(DasdAbsent, match="no such device"):
        await eckd.attach(Order("0.0.9999"), deadline=0.2)
    assert ("proc/cio_ignore", "add 0.0.9999") in z.kernel.writes  # ignored again, as it was
    with pytest.raises(VerbRefused, match="limits"):
        await eckd.attach(Order("0.0.0007"), deadline=0.2)
    taken = await eckd.attach(Order(B), deadline=5)
    z.detach(B)
    assert ccw.dasd(B) is not None
    assert eckd.state_of(B, taken.uid) == "the channel says: no device"
    z.give_back(B)
    assert eckd.state_of(B, taken.uid) == ""


async def test_a_busy_detach_is_refused_and_waits_for_udev_to_let_go(z: SimulatedZ) -> None:
    await eckd.attach(Order(B), deadline=5)
    z.dasds[B].open_count = 1
    with pytest.raises(DeviceHeld):
        await eckd.detach(B, deadline=0.2)
    assert _online(z) == [B]

    async def let_go() -> None:
        z.dasds[B].open_count = 0
        z.kernel.emit("change", f"/devices/css0/{B}/block/dasda", "block", "dasda")

    waiting = asyncio.create_task(eckd.detach(B, deadline=5))
    await asyncio.sleep(0.05)
    await let_go()
    assert await waiting
    assert _online(z) == []


async def test_a_mounted_disk_is_neither_taken_nor_given_up(z: SimulatedZ) -> None:
    await eckd.attach(Order(B), deadline=5)
    number = (z.kernel.sys / "block/dasda/dev").read_text().strip()
    z.kernel.put("proc/self/mountinfo", f"36 35 {number} / /mnt rw - ext4 /dev/dasda rw")
    with pytest.raises(DeviceHeld, match="mounted on /mnt"):
        await eckd.detach(B, deadline=0.2)
    with pytest.raises(DeviceHeld, match="mounted on /mnt"):
        await eckd.attach(Order(B), deadline=0.2)
    assert _online(z) == [B]


async def test_left_half_way_by_a_formatting_that_was_cut_off(z: SimulatedZ) -> None:
    z.dasds[A].formatted = True
    await eckd.attach(Order(A), deadline=5)
    z.dasds[A].formatted = False
    (z.kernel.sys / "bus/ccw/devices" / A / "status").write_text("basic\n")
    assert (await eckd.attach(CDL, deadline=5)).size > 0
    assert z.dasds[A].open_count == 0


async def test_twice_is_once(z: SimulatedZ) -> None:
    first = await eckd.attach(Order(B), deadline=5)
    again = await eckd.attach(Order(B), deadline=5)
    assert (again.device, again.diskseq) == (first.device, first.diskseq)
    assert await eckd.detach(B, deadline=5)
    assert not await eckd.detach(B, deadline=5)


async def test_names_follow_the_order_of_first_coming_online_but_the_bus_id_does_not(z: SimulatedZ) -> None:
    z.add(SimulatedDasd("0.0.9999", "SIM.750000000001.0120.99", formatted=True, ignored=False))
    first = await eckd.attach(Order("0.0.9999"), deadline=5)
    second = await eckd.attach(Order(B), deadline=5)
    assert (first.device, second.device) == ("/dev/dasda", "/dev/dasdb")
    assert not first.ignored
    await eckd.detach("0.0.9999", deadline=5)
    assert [one.bus_id for one in ccw.dasds() if one.disk == "dasdb"] == [B]
    assert (await eckd.attach(Order("0.0.9999"), deadline=5)).device == first.device


async def test_elsewhere_it_says_that_the_platform_does_not_have_it() -> None:
    with pytest.raises(NotOnThisPlatform, match=r"DASD 0\.0\.0120 is not supported on this platform"):
        await eckd.attach(Order(A), deadline=0.1)
