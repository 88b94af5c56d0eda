"""Addresses of this host, asked from the kernel by route netlink; routes by pyroute2.

The dump of addresses is small enough to be read here: the agent answers it in every poll, and pyroute2 would cost
every agent ten megabytes for it. The less common questions load pyroute2 when they are asked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

_HEADER = struct.Struct("=IHHII")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_NEWADDR, _GETADDR, _DONE, _ERROR = 20, 22, 3, 2
_REQUEST, _DUMP = 0x1, 0x300
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_TENTATIVE_OR_FAILED = 0x40 | 0x08
_HOST_SCOPE = 254
_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Address:
    """`scope`: 0 global, 253 link, 254 host; `index` of the interface."""

    address: str
    prefix: int
    scope: int
    index: int


@dataclass(frozen=True, slots=True)
class Route:
    """How this host reaches an address: interface, source address, gateway (None: directly)."""

    interface: str
    source: str | None
    gateway: str | None


def addresses() -> tuple[Address, ...]:
    """All usable addresses of this network namespace. OSError when the kernel does not answer."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(_TIMEOUT)
        sock.bind((0, 0))
        size = _HEADER.size + _ADDRESS.size
        sock.send(_HEADER.pack(size, _GETADDR, _REQUEST | _DUMP, 1, 0) + _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
        found: list[Address] = []
        while True:
            for kind, body in messages(sock.recv(1 << 16)):
                if kind == _DONE:
                    return tuple(found)
                if kind == _ERROR:
                    raise OSError(-struct.unpack_from("=i", body)[0], "the kernel refused the list of addresses")
                if kind == _NEWADDR and (address := parse_address(body)) is not None:
                    found.append(address)


def reachable_addresses(links: Collection[str] | None = None) -> tuple[str, ...]:
    """The addresses another host could use, of these interfaces or of all: none of loopback, none link-local."""
    known = [entry for entry in addresses() if entry.scope < _HOST_SCOPE]
    if links is not None:
        numbers = {index for index, name in socket.if_nameindex() if name in links}
        known = [entry for entry in known if entry.index in numbers]
    plain = (ipaddress.ip_address(entry.address) for entry in known)
    return tuple(str(address) for address in plain if not (address.is_loopback or address.is_link_local))


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Split one datagram into (type, body); a message of an impossible length ends it."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def parse_address(body: bytes) -> Address | None:
    """One RTM_NEWADDR; None for addresses that are not usable (yet) or not understood."""
    if len(body) < _ADDRESS.size:
        return None
    family, prefix, flags, scope, index = _ADDRESS.unpack_from(body)
    attributes: dict[int, bytes] = {}
    at = _ADDRESS.size
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size or at + length > len(body):
            break
        attributes[kind] = body[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    raw = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if raw is None or family not in {socket.AF_INET, socket.AF_INET6} or flags & _TENTATIVE_OR_FAILED:
        return None
    try:
        return Address(socket.inet_ntop(family, raw), prefix, scope, index)
    except ValueError:
        return None


async def route_to(address: str) -> Route | None:
    """The route that packets to `address` (an IP) take; None when there is none. ValueError for no IP."""
    wanted = ipaddress.ip_address(address)
    return await asyncio.to_thread(_route_to, str(wanted))


def _route_to(address: str) -> Route | None:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as ip:
        try:
            answers: list[Any] = list(ip.route("get", dst=address))
        except NetlinkError:
            return None
        for answer in answers:
            index = answer.get_attr("RTA_OIF")
            if index is not None:
                name = socket.if_indextoname(index)
                return Route(name, answer.get_attr("RTA_PREFSRC"), answer.get_attr("RTA_GATEWAY"))
    return None
