"""What images are called, and what the tools tell of them."""

from __future__ import annotations

from agent.backends import rbd_names as names
from agent.backends.rbd_names import Image, Listed
from agent.base.ids import new_id


def test_each_kind_has_its_names_and_strangers_have_none() -> None:
    ident = new_id()
    for kind in ("volume", "snapshot", "leftover"):
        assert names.parsed(names.image(kind, ident)) == (kind, ident)
    for other in (f"volume-{ident}", "byv-", "byv-x", f"byv-{ident.upper()}", f"byv-{ident}.old", ""):
        assert names.parsed(other) is None


def test_an_image_tells_what_it_shares_data_with() -> None:
    told = {"id": "12ab", "size": 512, "snapshot_count": 1}
    assert names.of_info(told) == Image("12ab", 512, 1, None)
    above = {"pool": "images", "image": "x", "id": "34cd", "snapshot": "s", "overlap": 512, "trash": True}
    assert names.of_info({**told, "parent": above}).parent == ("images", "34cd")


def test_a_list_has_images_with_their_snapshots() -> None:
    rows = [
        {"image": "a", "id": "1", "size": 512, "format": 2},
        {"image": "a", "id": "1", "snapshot": "one", "size": 512, "format": 2},
        {"image": "b", "id": "2", "size": 1024, "parent": {"pool": "p", "image": "a", "snapshot": "one"}},
    ]
    assert names.of_list(rows) == [
        Listed("a", 512, "", frozenset({"one"})),
        Listed("b", 1024, "a", frozenset()),
    ]
