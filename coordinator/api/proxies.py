"""What a proxy says of the caller and of the address he used; only proxies that the site names are believed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

_HOST = re.compile(r"[A-Za-z0-9.\-_]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+){1,8}")
_USUAL = {"http": "80", "https": "443"}


class Proxies:
    """Of each header the last value counts: a proxy adds its own behind what the caller made up."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(ip_network(network) for network in networks)

    def base(self, request: web.Request) -> str:
        """Where the caller reached us, without a slash at the end."""
        scheme, host, prefix = request.scheme, request.host, ""
        if self._networks and self._is_trusted(request.remote):
            told = _last(request, "X-Forwarded-Proto").lower()
            scheme = told if told in _USUAL else scheme
            host = _host(request, scheme) or host
            told = _last(request, "X-Forwarded-Prefix").rstrip("/")
            prefix = told if _PREFIX.fullmatch(told) else ""
        return f"{scheme}://{host}{prefix}"

    def caller(self, request: web.Request) -> str | None:
        """The address of the caller: the last one in front of proxies that are believed."""
        found = request.remote
        if not self._networks:
            return found
        told = [part.strip() for line in request.headers.getall("X-Forwarded-For", ()) for part in line.split(",")]
        while told and self._is_trusted(found):
            further = told.pop()
            if not _is_address(further):
                break
            found = further
        return found

    def _is_trusted(self, address: str | None) -> bool:
        if address is None or not _is_address(address):
            return False
        peer = ip_address(address)
        return any(peer.version == network.version and peer in network for network in self._networks)


def _last(request: web.Request, name: str) -> str:
    given = request.headers.getall(name, ("",))
    return given[-1].rpartition(",")[2].strip()


def _host(request: web.Request, scheme: str) -> str:
    """A proxy may name the port apart from the host."""
    host, port = _last(request, "X-Forwarded-Host"), _last(request, "X-Forwarded-Port")
    if not _HOST.fullmatch(host):
        return ""
    named = ":" in host.rpartition("]")[2]
    return host if named or not port.isdigit() or port == _USUAL[scheme] else f"{host}:{port}"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
