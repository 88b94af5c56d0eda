"""At which addresses of this host a target answers."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from agent.host import netlink, rdma
from agent.privsep.errors import NoRdma
from agent.targets.errors import NoPortal


def reachable_at(named: Sequence[str], own: str | None) -> tuple[str, ...]:
    """Those that the configuration names; else the agent's `own`, if it is one; else all of this host. NoPortal."""
    found = tuple(named) or ((own,) if own and _is_ip(own) else ()) or netlink.reachable_addresses()
    if not found:
        raise NoPortal()
    return found


def reachable_by_rdma(named: Sequence[str], own: str | None) -> tuple[str, ...]:
    """The same, of addresses that an RDMA device answers for; those that the configuration names are tried. NoRdma."""
    if named:
        return tuple(named)
    there = netlink.reachable_addresses(rdma.links())
    if not there:
        raise NoRdma(what="any of its addresses", reason="none is active")
    return (own,) if own in there else there


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
