"""What a query may ask of a list is bounded: each part of it is a condition of the database's."""

from __future__ import annotations

import json

import pytest
from multidict import MultiDict

from coordinator.api.conditions import pairs_condition, parsed
from coordinator.api.errors import BadRequest
from coordinator.api.image.queries import filters_of
from coordinator.images.errors import ImageInvalid
from coordinator.state.tables.volumes import volume_metadata, volumes


@pytest.mark.parametrize("text", ["[" * 4000, '{"a":' * 600, "-" * 4000 + "1", "(" * 4000])
def test_deep_values_say_nothing(text: str) -> None:
    assert parsed(text) is None


@pytest.mark.parametrize(("count", "accepted"), [(128, True), (129, False)])
def test_keys_of_one_filter(count: int, accepted: bool) -> None:
    text = json.dumps({f"k{number}": "" for number in range(count)})
    if accepted:
        pairs_condition("metadata", text, volume_metadata, "volume_id", volumes.c.id)
        return
    with pytest.raises(BadRequest):
        pairs_condition("metadata", text, volume_metadata, "volume_id", volumes.c.id)


@pytest.mark.parametrize(("count", "accepted"), [(64, True), (65, False)])
def test_properties_and_tags_of_images(count: int, accepted: bool) -> None:
    query = MultiDict([(f"k{number}", "") for number in range(count)] + [("tag", f"t{number}") for number in range(64)])
    if accepted:
        assert len(filters_of(query, "p").properties) == count
        return
    with pytest.raises(ImageInvalid):
        filters_of(query, "p")
