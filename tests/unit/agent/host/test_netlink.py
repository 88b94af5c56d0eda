"""Addresses by our own reading of route netlink: the same as pyroute2's, and calm about any bytes."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host import netlink


def test_addresses_are_those_that_pyroute2_sees() -> None:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        theirs = {
            (entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS"), entry["prefixlen"], entry["index"])
            for entry in ip.get_addr()
            if not entry["flags"] & 0x48
        }
    assert {(entry.address, entry.prefix, entry.index) for entry in netlink.addresses()} == theirs


def test_loopback_is_not_reachable() -> None:
    assert not {"127.0.0.1", "::1"} & set(netlink.reachable_addresses())


async def test_the_route_to_loopback() -> None:
    route = await netlink.route_to("127.0.0.1")
    assert route is not None
    assert (route.interface, route.gateway) == ("lo", None)


async def test_a_name_is_no_address() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        await netlink.route_to("localhost; rm")


@given(st.binary())
def test_any_datagram_can_be_read(data: bytes) -> None:
    for _, body in netlink.messages(data):
        netlink.parse_address(body)


@given(st.sampled_from([socket.AF_INET, socket.AF_INET6]), st.binary())
def test_any_address_message_can_be_read(family: int, tail: bytes) -> None:
    found = netlink.parse_address(bytes([family, 24, 0, 0, 1, 0, 0, 0]) + tail)
    assert found is None or found.prefix == 24
