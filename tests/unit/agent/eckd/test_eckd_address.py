"""What arrays hand out becomes a bus id, or is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.eckd.address import bus_id, of_unit
from agent.eckd.errors import BadAddress
from agent.host.ccw import BUS_ID


@pytest.mark.parametrize(("given_", "wanted"), [("1a2b", "0.0.1a2b"), ("0x1A2B", "0.0.1a2b"), ("120", "0.0.0120"),
                                              ("0.1.8000", "0.1.8000"), (" 0.0.8000 ", "0.0.8000")])  # fmt: skip
def test_bus_ids(given_: str, wanted: str) -> None:
    assert bus_id(given_) == wanted


@pytest.mark.parametrize("wrong", ["", "xyz", "12345", "0.0.12345", "0.4.1234", "../../etc", "0.0.1234\n0.0.1"])
def test_what_is_no_address(wrong: str) -> None:
    with pytest.raises(BadAddress):
        bus_id(wrong)


def test_control_unit_and_unit_address() -> None:
    assert of_unit("80", "1") == "0.0.8001"
    assert of_unit("0x8", "0F") == "0.0.080f"
    with pytest.raises(BadAddress):
        of_unit("800", "01")


@given(st.integers(0, 0xFFFF))
def test_every_device_number_has_one_bus_id(number: int) -> None:
    assert BUS_ID.fullmatch(bus_id(f"{number:x}"))
    assert bus_id(f"{number:04x}") == bus_id(f"0x{number:X}")
