"""What can go wrong where volumes live. No sentence names a path."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from agent.base.errors import Conflict, Invalid, NotFound, Permanent


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
