"""Addresses that images may be fetched from: looked up once, judged, and then the only ones that are connected to.

A name that is looked up again later could lead somewhere else by then, into the site's own networks.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from agent.images.web_errors import SourceAway, SourceRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Pinned:
    """A checked address of the web and the addresses of the network that it stands for."""

    url: URL
    addresses: tuple[Address, ...]

    @property
    def where(self) -> str:
        """What may be told of it: neither path nor query, which can hold what only its owner should know."""
        return str(self.url.origin())

    def leads_to(self, location: str) -> URL | None:
        """Where a redirect goes, if it stays on the same server."""
        try:
            target = self.url.join(URL(location))
            same = target.origin() == self.url.origin() and not target.user and not target.password
        except ValueError:
            return None
        return target if same else None


class OnlyThese(AbstractResolver):
    """Answers with the pinned addresses whatever is asked."""

    def __init__(self, pinned: Pinned) -> None:
        self._pinned = pinned

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._pinned.addresses
        ]

    async def close(self) -> None:
        """Nothing is kept open."""


async def pin(text: str, *, site: bool, networks: Iterable[Network] = ()) -> Pinned:
    """Check an address and look it up; `site` trusts where it leads, `networks` are allowed beside public ones.

    Raises SourceRefused, SourceAway (no such name). Every address of a name must be allowed.
    """
    url = checked_url(text)
    assert url.host is not None
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise SourceAway(where=str(url.origin()), reason=f"its name is not known ({error})") from None
    addresses = tuple(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))
    if not site and not all(allowed(address, networks) for address in addresses):
        raise SourceRefused(where=str(url.origin()), reason="it lies in a network that is not public")
    return Pinned(url, addresses)


def checked_url(text: str) -> URL:
    """An http or https address without user and password; SourceRefused."""
    try:
        url = URL(text)
        host = url.host
    except ValueError:
        raise SourceRefused(where="it", reason="it is no address") from None
    if url.scheme not in _PORTS or not host:
        raise SourceRefused(where="it", reason="only http and https addresses are known")
    if url.user is not None or url.password is not None:
        raise SourceRefused(where=str(url.origin()), reason="the address holds a user or a password")
    return url.with_fragment(None)


def allowed(address: Address, networks: Iterable[Network] = ()) -> bool:
    """Whether it is public, or in one of the listed networks; what is wrapped in an IPv6 address counts as itself."""
    inner = _inside(address)
    if any(inner.version == network.version and inner in network for network in networks):
        return True
    local = isinstance(inner, ipaddress.IPv6Address) and inner.is_site_local
    return inner.is_global and not (inner.is_multicast or inner.is_reserved or local)


def _inside(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
