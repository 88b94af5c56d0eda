"""Configuration of the connectors."""

from __future__ import annotations

from pydantic import Field

from agent.base.config import Section


class ConnectorsSection(Section):
    """`[connectors]`"""

    iscsi_interface: str = Field(
        "default",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="Interface of open-iscsi (`iscsiadm -m iface`) by which iSCSI volumes of other hosts are reached: "
        "an adapter that offloads, or a network device. One that does not work is told in the log, and `default` "
        "(plain TCP) is used.",
    )
