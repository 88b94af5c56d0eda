"""What can go wrong between a volume and a host."""

from __future__ import annotations

from agent.base.errors import Conflict, NotFound, Temporary


class DeviceMismatch(Conflict):
    """The device that came is not what was asked for: no path leaves the agent."""

    code = "attachment.mismatch"
    sentence = "{device} of attachment {attachment} is not what was asked for: {reason}."
    hint = "Detach the attachment and attach it again; nothing was handed out."


class DeviceNotReady(Temporary):
    code = "attachment.not-ready"
    sentence = "{device} did not become ready within {seconds} s: {reason}."
    hint = "Look at `udevadm monitor` and at the load of the host; it is tried again."


class NotAttached(NotFound):
    code = "attachment.not-attached"
    sentence = "Attachment {attachment} has no device on this host."
    hint = "`brickyard-agent attachments` lists what is attached."


class DetachIncomplete(Conflict):
    code = "attachment.left-over"
    sentence = "Attachment {attachment} could not be removed wholly; left: {left}; because: {reason}"
    hint = "Remove the named users, then detach again: it goes on where it stopped."


class BrickUnavailable(Temporary):
    code = "attachment.os-brick"
    status = 501
    sentence = "os-brick can not be used: {reason}."
    hint = "Install the extra: pip install 'brickyard[agent]'."
