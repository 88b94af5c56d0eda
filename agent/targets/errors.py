"""What can keep a volume from being offered to other hosts."""

from __future__ import annotations

from agent.base.errors import Conflict, NotFound, Temporary


class NoTarget(NotFound):
    code = "target.none"
    sentence = "Host {host} has no target for {protocol}; it has: {known}."
    hint = (
        "Configure one on that host, [targets.nvmet] for NVMe/TCP, [targets.nvmet_rdma] for NVMe/RDMA, [targets.lio] "
        "for iSCSI, [targets.iser] for iSER, [targets.vhost] for guests of its own, and start its agent anew."
    )


class NoPortal(Temporary):
    code = "target.no-portal"
    sentence = "No address was found at which other hosts could reach the target."
    hint = "Name the addresses: portals = [...] in the target's table, such as [targets.nvmet]."


class NotExportable(Conflict):
    code = "target.not-exportable"
    sentence = "Volume {volume} at {path} is neither a file nor a block device, so it can not be offered."
    hint = "Attach it on its own host."


class AlwaysWritable(Conflict):
    code = "target.always-writable"
    sentence = "Volume {volume} can not be offered read-only to {initiator} by {by}: the kernel's target has no such."
    hint = "Offer it by iSCSI: the section [targets.lio] on the volume's host."


class GrowRefused(Temporary):
    code = "target.not-grown"
    sentence = "The device of volume {volume} has {have} bytes after it was grown, not {need}."
    hint = "It is tried again; `dmesg` on the volume's host usually says why."
