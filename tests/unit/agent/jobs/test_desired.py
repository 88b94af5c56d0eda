from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from agent.base.ids import new_id
from agent.jobs import desired
from agent.jobs.desired import Row, Wish
from agent.jobs.errors import StaleGeneration
from agent.jobs.journal import Journal
from agent.wire.jobs import Generation, LuksFormat, WantedAttachment

A, B = new_id(), new_id()


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    made = Journal(tmp_path / "journal.db")
    await made.open()
    yield made
    await made.close()


def wish(volume: str, incarnation: int, sequence: int, *wanted: str, mode: str = "rw") -> Wish:
    asked = tuple(WantedAttachment.model_validate({"attachment_id": one, "mode": mode}) for one in wanted)
    generation = Generation(incarnation=incarnation, sequence=sequence)
    return Wish(volume, "files", generation, asked, LuksFormat(), "/volumes/x")


async def decided(journal: Journal, wanted: Wish) -> list[Row]:
    return await journal.write(partial(desired.decide, wish=wanted))


async def test_a_set_grows_and_shrinks(journal: Journal) -> None:
    volume = new_id()
    rows = await decided(journal, wish(volume, 1, 1, A))
    assert [(row.attachment_id, row.wanted, row.identifiers["path"]) for row in rows] == [(A, True, "/volumes/x")]
    assert rows[0].encryption == LuksFormat()
    rows = await decided(journal, wish(volume, 1, 2, A, B))
    assert [(row.attachment_id, row.wanted) for row in rows] == [(A, True), (B, True)]
    rows = await decided(journal, wish(volume, 1, 3, B))
    assert [(row.attachment_id, row.wanted) for row in rows] == [(A, False), (B, True)]
    assert await journal.read(partial(desired.of_volume, volume_id=volume)) == rows
    await journal.write(partial(desired.remove, attachment_id=A))
    assert [row.attachment_id for row in await journal.read(desired.all_rows)] == [B]


@pytest.mark.parametrize(
    ("incarnation", "sequence", "late"), [(1, 9, True), (2, 4, True), (2, 5, False), (3, 1, False)]
)
async def test_an_older_generation_is_refused(journal: Journal, incarnation: int, sequence: int, late: bool) -> None:
    volume = new_id()
    await decided(journal, wish(volume, 2, 5, A))
    if late:
        with pytest.raises(StaleGeneration) as caught:
            await decided(journal, wish(volume, incarnation, sequence))
        assert (caught.value.code, caught.value.status) == ("stale-generation", 409)
        assert [row.wanted for row in await journal.read(desired.all_rows)] == [True]
    else:
        assert [row.wanted for row in await decided(journal, wish(volume, incarnation, sequence, A))] == [True]


async def test_the_generation_outlives_its_rows_until_the_volume_is_deleted(journal: Journal) -> None:
    volume = new_id()
    await decided(journal, wish(volume, 1, 7, A))
    await decided(journal, wish(volume, 1, 8))
    await journal.write(partial(desired.remove, attachment_id=A))
    with pytest.raises(StaleGeneration):
        await decided(journal, wish(volume, 1, 7, A))
    await journal.write(partial(desired.forget_volume, volume_id=volume))
    assert await journal.read(partial(desired.generation_of, volume_id=volume)) is None


async def test_another_mode_is_noted_until_it_is_attached_anew(journal: Journal) -> None:
    volume = new_id()
    await decided(journal, wish(volume, 1, 1, A))
    (row,) = await decided(journal, wish(volume, 1, 2, A, mode="ro"))
    assert (row.mode, row.identifiers["detach_first"]) == ("ro", True)
    (row,) = await decided(journal, wish(volume, 1, 3, A, mode="ro"))
    assert row.identifiers["detach_first"]
