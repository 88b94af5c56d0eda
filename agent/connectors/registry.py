"""Which connectors there are, by protocol, loaded when first used. A new one is a module and a line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module

from agent.connectors.base import Connector
from agent.connectors.config import ConnectorsSection
from agent.connectors.errors import NoConnector

_MODULES = {
    "iscsi": "agent.connectors.iscsi",
    "iser": "agent.connectors.iscsi",
    "nvme-tcp": "agent.connectors.nvme",
    "nvme-rdma": "agent.connectors.nvme",
    "nvme-raid": "agent.connectors.nvme_raid",
    "fc": "agent.connectors.fc",
    "eckd": "agent.connectors.eckd",
    "rbd": "agent.connectors.rbd",
}
_abilities: dict[str, Callable[[], bool]] = {}


def configure(section: ConnectorsSection) -> None:
    """Once, before a connector is used."""
    if section.iscsi_interface != "default":
        from agent.connectors.iscsi import CONNECTOR

        CONNECTOR.interface = section.iscsi_interface
    if section.maps_images:
        from agent.connectors import rbd

        rbd.CONNECTOR.keyring, rbd.CONNECTOR.fail_io_s = section.ceph_keyring, section.ceph_fail_io_s
        _abilities["rbd"] = rbd.CONNECTOR.ready


def abilities() -> tuple[str, ...]:
    """What this host can use by its configuration, besides what the kernel shows to everyone. Blocking."""
    return tuple(name for name, ready in _abilities.items() if ready())


@cache
def connector(protocol: str) -> Connector:
    """The connector of this process for a protocol; NoConnector."""
    module = _MODULES.get(protocol)
    if module is None:
        raise NoConnector(noun="connector", id=protocol, protocol=protocol, known=", ".join(sorted(_MODULES)))
    found: Connector = import_module(module).CONNECTOR
    return found
