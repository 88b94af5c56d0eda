"""What can go wrong between the agent and a Ceph cluster."""

from __future__ import annotations

from agent.base.errors import Permanent, Temporary


class ClusterHangs(Temporary):
    """A monitor or an OSD does not answer: the tool was stopped, nobody waits for it any more."""

    code = "backend.ceph-hangs"
    retry_after = 30.0
    sentence = "The Ceph cluster of the back end {backend} has not answered within {seconds:g} s."
    hint = "Look at it with `ceph -s` and at the network to its monitors and OSDs; it is tried again by itself."


class SpaceUntold(Temporary):
    """Its manager has just begun and has not heard of the pool's space: Ceph then says 0 of everything."""

    code = "backend.ceph-space-untold"
    retry_after = 5.0
    sentence = "The Ceph cluster of the back end {backend} does not say yet how much room pool {pool} has."
    hint = "It is tried again by itself; if it stays so, see `ceph -s` (is there an active mgr?) and `ceph df`."


class ClusterDenied(Permanent):
    """The cluster knows the user not, or does not allow it this."""

    code = "backend.ceph-denied"
    status = 500
    sentence = "The Ceph cluster of the back end {backend} refuses the user client.{user}: {reason}."
    hint = (
        "Give it what it needs: ceph auth caps client.{user} mon 'profile rbd' osd 'profile rbd pool={pool}' "
        "mgr 'profile rbd pool={pool}'; and put its keyring where the configuration says."
    )


class CephPoolMissing(Permanent):
    """The pool of a back end is not in its cluster."""

    code = "backend.ceph-pool"
    status = 500
    sentence = "The back end {backend} can not use the Ceph pool {pool}: {reason}."
    hint = "Make it: ceph osd pool create {pool} && rbd pool init {pool}; see the guide on volumes in Ceph."


class CephFailed(Permanent):
    """A tool of Ceph ended with a failure that has no name here."""

    code = "backend.ceph-failed"
    status = 500
    sentence = "Ceph could not {what} on the back end {backend}: {reason}."
    hint = "Look at the cluster with `ceph -s`; the words after the colon are Ceph's own."


class ImageBusy(Temporary):
    """Somebody has the image open, in the cluster or through this agent."""

    code = "backend.ceph-busy"
    status = 409
    retry_after = 10.0
    sentence = "{name} on the back end {backend} is open: {reason}."
    hint = "Detach it first. A client that died counts as gone after 30 s; `rbd status {pool}/{image}` shows who it is."


class NoWayIn(Permanent):
    """The bytes of an image can not be reached from this host."""

    code = "backend.ceph-no-way-in"
    status = 500
    sentence = "The agent can not open volumes of the back end {backend}: {reason}."
    hint = (
        "Install qemu-utils and qemu-block-extra, name `work_dir` in /etc/brickyard/limits.toml, restart the agent; "
        "see the guide on Ceph."
    )


class KeyringUnsafe(Permanent):
    """A key that everybody on the host can read is none."""

    code = "backend.ceph-keyring"
    status = 500
    sentence = "The keyring {keyring} of the back end {backend} can be read by everybody on this host."
    hint = "chmod 0600 {keyring}, and chown it to the agent's user."
