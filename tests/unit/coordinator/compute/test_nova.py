"""The adapter to Nova against a Nova that speaks the true protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from coordinator.compute.errors import ComputeAway, ComputeRefused, ComputeTooOld
from coordinator.compute.nova import Nova
from coordinator.compute.settings import ComputeSettings
from coordinator.identity.errors import NotInCatalog
from coordinator.server.settings import CoordinatorSettings
from tests.support.nova import FakeNova, fake_nova

VOLUME = "77777777-2222-3333-4444-555555555555"
ONE, TWO, OFF = (f"{digit * 8}-2222-3333-4444-555555555555" for digit in "123")


@pytest.fixture
async def fake() -> AsyncIterator[FakeNova]:
    async with fake_nova(servers={ONE: "c1", TWO: "c2", OFF: None}) as made:
        yield made


@pytest.fixture
async def nova(fake: FakeNova) -> AsyncIterator[Nova]:
    made = fake.nova()
    yield made
    await made.close()


async def test_every_server_hears_of_an_extend(fake: FakeNova, nova: Nova) -> None:
    told = await nova.volume_extended([ONE, TWO], VOLUME)
    assert (told.done, dict(told.refused)) == ((ONE, TWO), {})
    assert fake.events == [{"name": "volume-extended", "server_uuid": one, "tag": VOLUME} for one in (ONE, TWO)]
    assert set(fake.versions) == {"2.51"}


async def test_a_new_image_is_told_at_its_microversion(fake: FakeNova, nova: Nova) -> None:
    assert (await nova.volume_reimaged([ONE], VOLUME)).done == (ONE,)
    assert (fake.events[0]["name"], fake.versions) == ("volume-reimaged", ["2.93"])


async def test_some_servers_only(fake: FakeNova, nova: Nova) -> None:
    """207: each server's own code."""
    told = await nova.volume_extended([ONE, OFF, VOLUME], VOLUME)
    assert told.done == (ONE,)
    assert dict(told.refused) == {OFF: "the server is on no host now", VOLUME: "there is no such server"}


async def test_no_server_at_all(fake: FakeNova, nova: Nova) -> None:
    """404 for the whole; and nothing is sent for nobody."""
    assert "No instances found" in (await nova.volume_extended([VOLUME], VOLUME)).refused[VOLUME]
    before = len(fake.versions)
    assert (await nova.volume_extended([], VOLUME)).result() == {"told": [], "refused": {}}
    assert len(fake.versions) == before


async def test_rights_are_missing(fake: FakeNova, nova: Nova) -> None:
    fake.may = False
    told = await nova.volume_extended([ONE], VOLUME)
    assert "status 403" in told.refused[ONE]
    assert "os-server-external-events" in told.refused[ONE]


async def test_a_nova_that_is_too_old(fake: FakeNova, nova: Nova) -> None:
    fake.newest = (2, 90)
    assert "2.93" in (await nova.volume_reimaged([ONE], VOLUME)).refused[ONE]
    assert (await nova.volume_extended([ONE], VOLUME)).done == (ONE,)
    with pytest.raises(ComputeTooOld, match=r"2\.97"):
        await fake.nova(completion_version="2.97").extend_volume(ONE, VOLUME)


@pytest.mark.parametrize("fault", [500, 503, 429])
async def test_what_passes_is_tried_again(fake: FakeNova, nova: Nova, fault: int) -> None:
    fake.faults = [fault, fault]
    assert (await nova.volume_extended([ONE], VOLUME)).done == (ONE,)
    fake.faults = [fault] * 3
    assert f"answered {fault}" in (await nova.volume_extended([ONE], VOLUME)).refused[ONE]
    assert fake.faults == []


async def test_no_answer_in_time(fake: FakeNova) -> None:
    nova = fake.nova(timeout_s=0.3, attempts=2)
    fake.faults = ["hang", "hang"]
    assert "no answer within 0.3 s" in (await nova.volume_extended([ONE], VOLUME)).refused[ONE]
    fake.faults = ["hang"]
    assert (await nova.volume_extended([ONE], VOLUME)).done == (ONE,)
    await nova.close()


async def test_a_token_that_has_run_out_is_replaced(fake: FakeNova, nova: Nova) -> None:
    await nova.volume_extended([ONE], VOLUME)
    assert fake.logins == 1
    fake.tokens.clear()
    assert (await nova.volume_extended([ONE], VOLUME)).done == (ONE,)
    assert fake.logins == 2


async def test_nobody_there(fake: FakeNova) -> None:
    nova = fake.nova(endpoint="http://127.0.0.1:9/v2.1", attempts=1)
    assert (await nova.volume_extended([ONE], VOLUME)).refused[ONE].startswith("The compute service could not be asked")
    with pytest.raises(ComputeAway):
        await nova.use(ONE, VOLUME, "a")
    await nova.close()


async def test_an_endpoint_that_the_catalog_lacks(fake: FakeNova) -> None:
    nova = fake.nova(region="Two", attempts=1)
    with pytest.raises(ComputeAway, match="region Two") as caught:
        await nova.use(ONE, VOLUME, "a")
    assert isinstance(caught.value.__cause__, NotInCatalog)
    await nova.close()


@pytest.mark.parametrize(
    ("known", "said"), [(None, "gone"), ("mine", "in-use"), ("another", "elsewhere")]
)  # fmt: skip
async def test_what_a_server_has(fake: FakeNova, nova: Nova, known: str | None, said: str) -> None:
    if known is not None:
        fake.attached[ONE, VOLUME] = known
    assert await nova.use(ONE, VOLUME, "mine") == said
    assert fake.versions == ["2.89"]
    assert await nova.use(VOLUME, VOLUME, "mine") == "gone"
    fake.faults = [403]
    with pytest.raises(ComputeRefused, match="status 403"):
        await nova.use(ONE, VOLUME, "mine")


async def test_a_server_that_is_to_extend_a_volume(fake: FakeNova) -> None:
    nova = fake.nova(completion_version="2.97", completion_deadline_s=7)
    assert nova.completion_deadline_s == 7
    await nova.extend_volume(ONE, VOLUME)
    assert (fake.events[0]["name"], fake.versions) == ("volume-extended", ["2.97"])
    for server in (OFF, VOLUME):
        with pytest.raises(ComputeRefused):
            await nova.extend_volume(server, VOLUME)
    assert fake.nova().completion_deadline_s is None
    await nova.close()


@pytest.mark.parametrize("bad", [{"endpoint": "nova:8774"}, {"completion_version": "3.1"}, {"strategy": "zun"}])
def test_settings_that_can_not_be(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ComputeSettings(**bad)


def test_nova_needs_a_keystone() -> None:
    with pytest.raises(ValidationError, match=r"identity\.keystone"):
        CoordinatorSettings.model_validate({"compute": {"strategy": "nova"}})
