"""What can go wrong while bytes are copied. No sentence names a path: they may reach a user of the API."""

from __future__ import annotations

import errno

from agent.base.errors import BrickyardError, Conflict, Permanent


class CopyCancelled(Conflict):
    """The copy was told to stop; what was written so far is incomplete."""

    code = "copying.cancelled"
    sentence = "The copy was cancelled after {done} of {total} bytes."


class DestinationFull(Permanent):
    """The place that is written to has no room left."""

    code = "copying.no-space"
    status = 507
    sentence = "The destination of the copy has no space left."
    hint = "Free or add space where the volume is to live, then try again."


class DestinationSmall(Permanent):
    """The destination is a device that is smaller than what is to be written."""

    code = "copying.too-small"
    sentence = "The destination holds {have} bytes, but {need} are to be written."
    hint = "Make the destination larger first."


class SourceShort(Permanent):
    """The source ended before its promised size: it was changed while it was copied."""

    code = "copying.source-changed"
    status = 409
    sentence = "The source of the copy ended at byte {offset} of {size}."
    hint = "Make sure that nothing changes the source while it is copied, then try again."


class NotShared(Conflict):
    """The source is written to meanwhile, and its file system does not share its data with the copy."""

    code = "copying.not-shared"
    sentence = "The source is in use and does not share its data with a copy, which would be of no one moment."
    hint = "Detach it first. On Btrfs, files without copy-on-write (chattr +C) share their data with such files alone."


class CopyRefused(Permanent):
    """The host does not let the agent open, read or write one side."""

    code = "copying.refused"
    status = 500
    sentence = "The {side} of the copy can not be used: {reason}."
    hint = "Give the agent's user the right to it; see `brickyard-agent doctor`."


class CopyFailed(Permanent):
    """Reading or writing failed below us: mostly a bad or vanished device."""

    code = "copying.failed"
    status = 500
    sentence = "The {side} of the copy failed: {reason}."
    hint = "See the host's kernel log for the device below it."


_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP}


def translated(failure: OSError, side: str) -> BrickyardError:
    """The error that tells an operating system's failure on one side (`source` or `destination`)."""
    if failure.errno in _FULL and side == "destination":
        return DestinationFull()
    kind = CopyRefused if failure.errno in _REFUSED else CopyFailed
    return kind(side=side, reason=failure.strerror or type(failure).__name__)
