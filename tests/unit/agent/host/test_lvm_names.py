"""Names of volumes and devices: read back as they were made, and never mistaken."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host import lvm

GROUPS = st.from_regex(r"[A-Za-z0-9_+.]([A-Za-z0-9_+.-]{0,20}[A-Za-z0-9_+.])?", fullmatch=True)
IDS = st.uuids().map(str)


@given(st.sampled_from(lvm.PARTS), IDS)
def test_a_volumes_name_tells_part_and_id(part: lvm.Part, ident: str) -> None:
    name = lvm.volume_name(part, ident)
    assert lvm.parsed_name(name) == (part, ident)
    assert lvm.is_plain_name(name)


@given(st.text(max_size=60))
def test_only_names_that_we_make_are_ours(name: str) -> None:
    parsed = lvm.parsed_name(name)
    assert parsed is None or lvm.volume_name(*parsed) == name


@given(GROUPS, GROUPS)
def test_a_device_name_tells_group_and_volume(group: str, name: str) -> None:
    assert lvm.split_title(lvm.mapper_title(group, name)) == (group, name)


@pytest.mark.parametrize("title", ["", "control", "vg-pool-tpool", "vg-pool_tdata-cow", "-x", "x-", "brickyard--x"])
def test_what_is_no_plain_volume_has_no_group(title: str) -> None:
    assert lvm.split_title(title) is None


@pytest.mark.parametrize(
    "name", ["", "-v", "--help", "a/b", "a b", ".", "..", "a\n", "pool_tdata", "x" * 128, "pool_rimage_0", "ä"]
)
def test_names_that_lvm_would_take_for_something_else(name: str) -> None:
    assert not lvm.is_plain_name(name)


@pytest.mark.parametrize(
    ("tags", "size", "exact"),
    [
        ("", 8192, 8192),
        ("brickyard,brickyard.bytes=512", 8192, 512),
        ("brickyard.bytes=9000", 8192, 8192),
        ("brickyard.bytes=x,brickyard.bytes=0", 8192, 8192),
        ("other,brickyard.bytes=1024,brickyard.zeroed", 8192, 1024),
    ],
)
def test_bytes_are_those_asked_for_and_never_more_than_there_are(tags: str, size: int, exact: int) -> None:
    assert lvm.exact_bytes(tags, size) == exact


@given(st.integers(0, 1 << 50), st.integers(9, 26))
def test_rounding_is_up_and_by_less_than_an_extent(size: int, shift: int) -> None:
    extent = 1 << shift
    assert 0 <= lvm.rounded(size, extent) - size < extent
    assert lvm.rounded(size, extent) % extent == 0


def test_the_uuid_of_a_device_is_the_groups_and_the_volumes() -> None:
    made = lvm.device_uuid("aydBZJ-iuIc-Kze8-rPag-x1X4-cG8T-VWNFtn", "N21OOu-NluS-SZLO-2OQ0-eOMZ-etSI-N0oBKe")
    assert made == "LVM-aydBZJiuIcKze8rPagx1X4cG8TVWNFtnN21OOuNluSSZLO2OQ0eOMZetSIN0oBKe"
    assert str(uuid.UUID(int=0)) not in made
