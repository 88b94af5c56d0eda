"""Verbs by which a daemon reads its limits again: the file that root named at the start, by the same checks."""

from __future__ import annotations

from agent.privsep import limits
from agent.privsep.contexts import block, ceph, channel, crypt, lvm, net, privileged


@privileged(block)
def block_limits() -> None:
    """LimitsInvalid: the old limits stay."""
    limits.again()


@privileged(crypt)
def crypt_limits() -> None:
    """LimitsInvalid: the old limits stay."""
    limits.again()


@privileged(net)
def net_limits() -> None:
    """LimitsInvalid: the old limits stay."""
    limits.again()


@privileged(lvm)
def lvm_limits() -> None:
    """LimitsInvalid: the old limits stay."""
    limits.again()


@privileged(channel)
def channel_limits() -> None:
    """LimitsInvalid: the old limits stay."""
    limits.again()


@privileged(ceph)
def ceph_limits() -> None:
    """LimitsInvalid: the old limits stay."""
    limits.again()


BY_CONTEXT = {
    "block": block_limits, "crypt": crypt_limits, "net": net_limits, "lvm": lvm_limits, "channel": channel_limits,
    "ceph": ceph_limits,
}  # fmt: skip
