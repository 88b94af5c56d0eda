"""Why an attachment can not be made, changed or ended."""

from __future__ import annotations

from agent.base.errors import Conflict, Invalid


class KeptByHost(Conflict):
    code = "attachment.kept-by-host"
    sentence = (
        "Attachment {id} of volume {volume} is kept by the agent of host {host}; it is ended by detaching it there."
    )
    hint = "Run: brickyard attachment delete {id}."


class UsedByCompute(Conflict):
    """An attachment that a server uses is ended by the compute service alone (CVE-2023-2088)."""

    code = "attachment.used-by-compute"
    sentence = (
        "Detach volume from instance {instance} using the Compute API: attachment {id} of volume {volume} is in use by "
        "it{where}."
    )
    hint = (
        "Run: openstack server remove volume {instance} {volume}. When the server is gone for good, an administrator "
        "can end it: openstack volume set --state available --detached {volume}."
    )


class ComputeUnsure(Conflict):
    """Without the compute service's word an attachment of a server counts as in use."""

    code = "attachment.compute-unsure"
    sentence = (
        "Attachment {id} of volume {volume} belongs to server {instance}, and it is not known whether that is so "
        "still: {reason}"
    )
    hint = "Detach the volume with the compute service: openstack server remove volume {instance} {volume}."


class ReadOnlyVolume(Invalid):
    code = "attachment.read-only-volume"
    sentence = "Invalid attaching mode '{mode}' for volume {volume}: it is marked read-only."
    hint = "Ask for mode ro (microversion 3.54), or clear the flag: openstack volume set --read-write {volume}."


class NoConnector(Invalid):
    code = "attachment.no-connector"
    sentence = "Invalid input for field/attribute connector. Value: {value}. It must name at least the host."


class OtherConsumer(Conflict):
    code = "attachment.other-consumer"
    sentence = "Attachment {id} is connected for another consumer, on host {host}."
    hint = "Make an attachment of its own for each consumer."


class NoTarget(Invalid):
    code = "attachment.no-target"
    sentence = "Invalid request to attach volume to an invalid target: neither instance_uuid nor host_name is given."


class WhichAttachment(Invalid):
    code = "attachment.which"
    sentence = (
        "Invalid volume: Detach volume failed: More than one attachment, but no attachment_id provided "
        "(volume {volume} has {ids})."
    )
    hint = "Name one of them."


class NotOfVolume(Invalid):
    code = "attachment.not-of-volume"
    sentence = (
        "Invalid volume: Volume attachment could not be found with filter: attachment_id = {id} (volume {volume})."
    )


class AlreadyAttached(Invalid):
    code = "attachment.already"
    sentence = "Invalid volume: volume {volume} is already attached: {holders}."
    hint = "Detach it there first, or use a type that allows multiattach."
