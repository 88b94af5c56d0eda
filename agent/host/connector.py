"""How this host presents itself to a Block Storage API: the `connector` of an attachment, as os-brick words it.

Read from files alone: no tools are run, and nothing is made that is not there.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

from agent.host import facts, nvme, scsi, sysfs

_NAME = re.compile(r"0x([0-9a-f]{16})")


def properties(address: str, root: Path = Path("/")) -> dict[str, Any]:
    """The words that arrays and drivers know; a transport that this host does not have is left out."""
    multipath = scsi.multipathd_listens(root / "proc")
    told: dict[str, Any] = {
        "platform": os.uname().machine,
        "os_type": sys.platform,
        "ip": address,
        "host": socket.gethostname(),
        "multipath": multipath,
        "enforce_multipath": False,
        "do_local_attach": False,
        "nvme_native_multipath": nvme.gathers_paths(root / "sys"),
    }
    known = {
        "initiator": facts.initiator_iqn(root),
        "nqn": nvme.host_nqn(root) if nvme.available(root) else None,
        "nvme_hostid": (sysfs.text(root / "etc/nvme/hostid") or "").strip(),
        "system uuid": (sysfs.text(root / "sys/class/dmi/id/product_uuid") or "").strip().lower(),
        "wwpns": _names("port_name", root),
        "wwnns": _names("node_name", root),
    }
    return told | {name: value for name, value in known.items() if value}


def _names(attribute: str, root: Path) -> list[str]:
    """Of Fibre Channel ports that have a link, in their order."""
    ports = sorted((root / "sys/class/fc_host").glob("host*"))
    online = (port for port in ports if sysfs.text(port / "port_state") == "Online")
    found = (_NAME.fullmatch(sysfs.text(port / attribute) or "") for port in online)
    return [name[1] for name in found if name]
