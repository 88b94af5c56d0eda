"""LUNs in the form that zfcp wants: hexadecimal, first level first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host.fcp import LUN, WWPN, path_names, scsi_lun
from agent.zfcp.errors import BadLun
from agent.zfcp.lun import fcp_lun, port_name


@pytest.mark.parametrize(("lun", "addressing", "wanted"), [
    (1, "SAM", "0x0001000000000000"), (10, "SAM", "0x000a000000000000"), (255, "SAM", "0x00ff000000000000"),
    (0x40114000, "SAM", "0x4011400000000000"), (256, "SAM", "0x0100000000000000"),
    (256, "SAM2", "0x4100000000000000"), (256, "SAM3-flat", "0x4100000000000000"),
    (1, "SAM2", "0x0001000000000000"), (1, "SAM3-flat", "0x4001000000000000"),
])  # fmt: skip
def test_known_luns(lun: int, addressing: str, wanted: str) -> None:
    assert fcp_lun(lun, addressing) == wanted  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lun", "addressing"), [(-1, "SAM"), (1 << 32, "SAM"), (0x4000, "SAM2"), (0x4000, "SAM3-flat")]
)
def test_luns_that_do_not_fit(lun: int, addressing: str) -> None:
    with pytest.raises(BadLun):
        fcp_lun(lun, addressing)  # type: ignore[arg-type]


@given(st.integers(0, 0xFFFFFFFF))
def test_every_lun_is_sixteen_digits_and_comes_back(lun: int) -> None:
    text = fcp_lun(lun)
    assert LUN.fullmatch(text)
    assert int(text[2:10], 16) in {lun, lun << 16}


@pytest.mark.parametrize("form", ["5005076300C20C8A", "0x5005076300c20c8a", "50:05:07:63:00:c2:0c:8a"])
def test_port_names(form: str) -> None:
    assert port_name(form) == "0x5005076300c20c8a"
    assert WWPN.fullmatch(port_name(form))


@pytest.mark.parametrize("wrong", ["", "0x5005", "zz05076300c20c8a", "0x5005076300c20c8a0"])
def test_what_is_no_port_name(wrong: str) -> None:
    with pytest.raises(BadLun):
        port_name(wrong)


def test_the_three_names_of_a_path() -> None:
    assert path_names("0.0.1800", "0x5005076300c20c8a", fcp_lun(10)) == (
        "ccw-0.0.1800-zfcp-0x5005076300c20c8a:0x000a000000000000",
        "ccw-0.0.1800-fc-0x5005076300c20c8a-lun-10",
        "ccw-0.0.1800-fc-0x5005076300c20c8a-lun-0x000a000000000000",
    )


@pytest.mark.parametrize(("lun", "number"), [(10, 10), (255, 255), (256, 256), (0x40114000, 0x40004011)])
def test_the_number_by_which_the_scsi_layer_knows_a_lun(lun: int, number: int) -> None:
    assert scsi_lun(fcp_lun(lun)) == number
