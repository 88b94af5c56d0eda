"""What can go wrong with DASDs."""

from __future__ import annotations

from agent.base.errors import Conflict, Invalid, Temporary


class BadAddress(Invalid):
    code = "eckd.bad-address"
    sentence = "{given} names no DASD: {reason}."
    hint = "A device number is 0.0.1a2b; from a control unit comes its address and a unit address, two hex digits each."


class DasdAbsent(Temporary):
    code = "eckd.absent"
    status = 409
    retry_after = 10.0
    sentence = "DASD {device} can not be used: {reason}."
    hint = "See lscss and lsdasd -a on the host; the device must be in the I/O configuration of this partition."


class DasdUnformatted(Conflict):
    """Never formatted unless the order says so: an unreadable label may be somebody's data."""

    code = "eckd.unformatted"
    sentence = "DASD {device} is not formatted, and formatting was not ordered."
    hint = "Order it with the attachment if the device is new; a copy or a snapshot is never formatted."


class FormatFailed(Conflict):
    code = "eckd.format-failed"
    sentence = "DASD {device} could not be formatted: {reason}."
    hint = "It was set offline again; run dasdfmt by hand to see more."


class DasdForeign(Conflict):
    code = "eckd.foreign"
    sentence = "DASD {device} is {found}, not {wanted}: nothing was handed out."
    hint = "Compare the unique id (lsdasd -u) with what the array gave out."
