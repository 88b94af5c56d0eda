"""What is due longest comes first, nothing is lost or doubled, and who hangs does not hold up the others."""

from __future__ import annotations

import asyncio

from coordinator.fleet.timetable import Places, Timetable


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_in_the_order_in_which_they_are_due() -> None:
    clock = Clock()
    table = Timetable(clock)
    for name, due in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        table.put(name, due)
    clock.now = 10.0
    assert [await table.next() for _ in range(3)] == [("a", 1.0), ("b", 2.0), ("c", 3.0)]


async def test_a_new_time_takes_the_place_of_the_old_one() -> None:
    clock = Clock()
    table = Timetable(clock)
    table.put("a", 1.0)
    table.put("a", 5.0)
    table.put("b", 2.0)
    table.drop("b")
    clock.now = 10.0
    assert await table.next() == ("a", 5.0)
    waiting = asyncio.create_task(table.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    table.put("c", 9.0)
    assert await asyncio.wait_for(waiting, 60) == ("c", 9.0)


async def test_what_becomes_due_earlier_wakes_who_waits() -> None:
    table = Timetable()
    table.put("late", asyncio.get_running_loop().time() + 1e6)
    waiting = asyncio.create_task(table.next())
    await asyncio.sleep(0)
    table.put("now", 0.0)
    assert (await asyncio.wait_for(waiting, 60))[0] == "now"
    assert "late" in table
    assert "now" not in table


async def test_old_entries_are_cleared_away() -> None:
    table = Timetable(Clock())
    for number in range(10_000):
        table.put("a", 1.0 + number)
    assert len(table._heap) < 200


async def test_who_hangs_gives_its_place_away() -> None:
    places = Places(1, 2, 0.2)
    hanging = await places.take(lambda: 9.0)
    other = await asyncio.wait_for(places.take(lambda: 9.0), 60)
    third = asyncio.create_task(places.take(lambda: 9.0))
    await asyncio.sleep(0.3)
    assert not third.done(), "two are at work, and no more may be"
    hanging.leave()
    await asyncio.wait_for(third, 60)
    other.leave()
    third.result().leave()
    assert (places.counted, places.taken) == (0, 0)


async def test_who_is_at_work_on_an_answer_keeps_its_place() -> None:
    places = Places(1, 9, 0.01)
    busy = await places.take(lambda: 0.0)
    second = asyncio.create_task(places.take(lambda: 0.0))
    await asyncio.sleep(0.1)
    assert not second.done()
    busy.leave()
    (await asyncio.wait_for(second, 60)).leave()
