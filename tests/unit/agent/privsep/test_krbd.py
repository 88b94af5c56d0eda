"""What the privileged side refuses to tell the kernel's client of Ceph, and what it tells it."""

from __future__ import annotations

from typing import Any

import pytest

from agent.privsep import client, krbd
from agent.privsep.contexts import net
from agent.privsep.errors import KernelRefused, VerbRefused

IMAGE = "byv-11111111-2222-4333-8444-555555555555"
GOOD: dict[str, Any] = {
    "pool": "volumes", "image": IMAGE, "who": ("brickyard", b"AQ=="), "monitors": [("192.0.2.1", 6789)],
    "messenger": "v1", "read_only": False, "fail_io_s": 300,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _direct() -> Any:
    net.set_client_mode(False)
    client.set_mode("direct")
    yield
    client.set_mode("none")
    net.set_client_mode(True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pool": "a b"},
        {"pool": "-x"},
        {"image": "other"},
        {"image": f"{IMAGE} -"},
        {"image": IMAGE.replace("byv", "byp")},
        {"who": ("a,secret=x", b"AQ==")},
        {"who": ("brickyard", b"not base64!")},
        {"who": ("brickyard", b"")},
        {"monitors": []},
        {"monitors": [("evil,name=admin", 1)]},
        {"monitors": [("192.0.2.1", 1 << 16)]},
        {"messenger": "v3"},
        {"read_only": 1},
        {"fail_io_s": "1,secret=x"},
    ],
    ids=str,
)
def test_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(VerbRefused) as caught:
        krbd.rbd_map(**{**GOOD, **wrong})
    assert "AQ==" not in str(caught.value)


def test_where_the_kernel_has_no_such_client() -> None:
    if krbd.rbd.available():
        pytest.skip("this kernel has it")
    with pytest.raises(KernelRefused, match="modprobe rbd"):
        krbd.rbd_map(**GOOD)


def test_what_the_kernel_is_told() -> None:
    monitors = [("192.0.2.1", 6789), ("2001:db8::1", 3300)]
    places, options = krbd._options("brickyard", monitors, "v2", True, 20)
    assert places == "192.0.2.1:6789,[2001:db8::1]:3300"
    assert options == "name=brickyard,osd_request_timeout=20,mount_timeout=30,ms_mode=prefer-crc,ro"
