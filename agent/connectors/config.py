"""Configuration of the connectors."""

from __future__ import annotations

from pathlib import Path

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
    ceph_keyring: Path = Field(
        Path("/etc/ceph/ceph.client.brickyard.keyring"),
        description="Keyring with the Ceph user as whom this host maps volumes of a cluster by the kernel's client "
        "(its first one; mode 0640, group `brickyard`). Where there is none, volumes in Ceph are not attached to it.",
    )

    ceph_fail_io_s: int = Field(
        300,
        ge=10,
        le=3600,
        description="Seconds for which what is read and written waits for a Ceph cluster that does not answer; then it "
        "fails. A detach waits as long.",
    )

    @property
    def maps_images(self) -> bool:
        """Whether there is a keyring, in a folder that may be looked into. Blocking."""
        try:
            return self.ceph_keyring.is_file()
        except OSError:
            return False
