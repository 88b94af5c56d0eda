"""What can go wrong where volumes live. No sentence names a path."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from agent.base.errors import Conflict, Invalid, NotFound, Permanent, Temporary


class VolumeNotFound(NotFound):
    """The back end holds no such volume or snapshot."""

    code = "backend.not-found"
    sentence = "{noun} {id} is not on the back end {backend}."
    hint = "Compare with `brickyard-agent explain {id}` on the host that should hold it."


class VolumeExists(Conflict):
    """A volume or snapshot of that id is there already, but not as it was asked for."""

    code = "backend.exists"
    sentence = "{noun} {id} is already on the back end {backend}, with {have} bytes instead of {need}."


class CanNot(Permanent):
    """Back ends differ in what they can do."""

    code = "backend.can-not"
    status = 400
    sentence = "The back end {backend} can not {what}."


class OnlyInCluster(Permanent):
    code = "backend.only-in-cluster"
    status = 409
    sentence = "Volume {id} of the back end {backend} is an image in a Ceph cluster, and no device is made of it here."
    hint = "Attach it by rbd ([connectors] ceph_keyring on the host), or to a server (Nova); the image is {image}."


class Luks1Alone(Permanent):
    """Nothing but the clients of the cluster opens its volumes, and QEMU knows the first version alone."""

    code = "backend.luks1-alone"
    status = 400
    sentence = "A new volume of the back end {backend} can not be encrypted as LUKS2: no server would open it there."
    hint = "Choose a volume type whose encryption provider is `luks`, or another back end."


class NotAdoptable(Permanent):
    """What others made is taken in only when nobody uses it and nothing can surprise."""

    code = "backend.not-adoptable"
    status = 400
    sentence = "{name} on the back end {backend} can not be managed: {reason}."


class ShrinkRefused(Invalid):
    """A volume is never made smaller: its last bytes would be lost."""

    code = "backend.shrink-refused"
    sentence = "Volume {id} has {have} bytes and can not be made smaller ({need})."
    hint = "Make a new volume of the smaller size and copy what is wanted."


class NoSpace(Permanent):
    """The file system below the back end is full, or its quota is used up."""

    code = "backend.no-space"
    status = 507
    sentence = "The back end {backend} has no space left."
    hint = "Free or add space on the host, or choose another back end."


class OverSubscribed(Permanent):
    """The promised sizes would exceed what the configuration allows to promise."""

    code = "backend.over-subscribed"
    status = 507
    sentence = (
        "The back end {backend} has promised {allocated} bytes and may promise {limit}; {need} more are too many."
    )
    hint = "Delete volumes, add space, or raise `max_over_subscription` of this back end."


class NoPermission(Permanent):
    """The agent's user may not do that in the folder of the back end."""

    code = "backend.no-permission"
    status = 500
    sentence = "The agent may not use the folder of the back end {backend}: {reason}."
    hint = "Give the folder to the agent's user (chown) and check that it is mounted writable."


class StorageFailed(Permanent):
    """The file system below the back end reported an error."""

    code = "backend.failed"
    status = 500
    sentence = "The storage below the back end {backend} failed: {reason}."
    hint = "See the host's kernel log for the disk below it."


class HeldByConsumer(Permanent):
    """QEMU has the volume's file open and does not share the right to resize it."""

    code = "backend.held-by-consumer"
    status = 409
    sentence = "The file of volume {id} is locked by the process that uses it."
    hint = "Who uses it has to enlarge it; or detach it first."


class ReportUnreadable(Permanent):
    """LVM said something that this release does not understand."""

    code = "backend.lvm-report"
    status = 500
    sentence = "LVM's report on the volume group {group} can not be read: {reason}."
    hint = "Compare the version of LVM (`lvm version`) with the ones named in the documentation."


class PoolMissing(Permanent):
    """The thin pool of a back end is not in its volume group, or is something else."""

    code = "backend.lvm-pool"
    status = 500
    sentence = "The back end {backend} can not use {group}/{pool}: {reason}."
    hint = "Make the pool: lvcreate --type thin-pool -L SIZE -n {pool} {group}; see the guide on volumes on LVM."


class PoolNearlyFull(Permanent):
    """A thin pool has passed the mark above which nothing new is made in it."""

    code = "backend.pool-full"
    status = 507
    sentence = "The pool of the back end {backend} is {percent:.1f} % full of {part}; from {mark} % on nothing is made."
    hint = "Add space (vgextend, lvextend of the pool) or delete volumes; the marks are keys of the back end."


class NotMounted(Temporary):
    """The share of a back end is not at its place: nothing is written there."""

    code = "backend.not-mounted"
    retry_after = 10.0
    sentence = "The back end {backend} needs {share} mounted at {path}; there is {there}."
    hint = "Mount it on the host (its mount unit or /etc/fstab); it is used again as soon as it is there."


class ShareHangs(Temporary):
    """The server of a share does not answer; calls that wait for it are not repeated beside themselves."""

    code = "backend.share-hangs"
    retry_after = 30.0
    sentence = "The server of the back end {backend} has not answered within {seconds:g} s."
    hint = "Look at the server and the network; other back ends go on. See the mount options in the guide."


class DeviceDenied(Permanent):
    """The device of a logical volume is there, but not for the agent's user."""

    code = "backend.device-denied"
    status = 500
    sentence = "The agent's user may not open {device}, the volume {id} of the back end {backend}."
    hint = "Install the udev rules of Brickyard (udev/12-brickyard.rules), then: udevadm control --reload."


@contextlib.contextmanager
def translated(backend: str) -> Iterator[None]:
    """Turn an operating system's failure into one of the errors above."""
    try:
        yield
    except OSError as failure:
        reason = failure.strerror or type(failure).__name__
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(backend=backend) from failure
        if failure.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP):
            raise NoPermission(backend=backend, reason=reason) from failure
        raise StorageFailed(backend=backend, reason=reason) from failure
