"""Interfaces of open-iscsi: the adapter, network device or transport by which a session goes, as its operator says."""

from __future__ import annotations

from pathlib import Path

from agent.privsep.errors import InterfaceUnknown

IFACES = Path("/etc/iscsi/ifaces")
_BUILT_IN = {"default": "tcp", "iser": "iser"}
# This host is known by one name to all targets: who may use a volume is decided by it.
_NOT_TAKEN = "iface.initiatorname"


def lines(name: str) -> dict[str, str]:
    """What a node record says of an interface, whose name the caller has checked; raises InterfaceUnknown."""
    if name in _BUILT_IN:
        return {"iface.iscsi_ifacename": name, "iface.transport_name": _BUILT_IN[name]}
    file = IFACES / name
    try:
        said = [line.partition("=") for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError):
        raise InterfaceUnknown(name=name, file=str(file), reason="it can not be read") from None
    given = {key.strip(): value.strip() for key, _, value in said if key.startswith("iface.")}
    if given.get("iface.iscsi_ifacename") != name or not given.get("iface.transport_name"):
        raise InterfaceUnknown(name=name, file=str(file), reason="it names no interface of that name with a transport")
    return {key: value for key, value in given.items() if value not in {"", "<empty>"} and key != _NOT_TAKEN}
