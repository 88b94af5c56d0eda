"""What can go wrong between this service and the compute service."""

from __future__ import annotations

from agent.base.errors import Permanent, Temporary


class ComputeAway(Temporary):
    """It gave no answer that can be used, for now."""

    code = "compute.away"
    status = 503
    retry_after = 5.0
    sentence = "The compute service could not be asked: {reason}."
    hint = "See whether it runs, and [compute] in the coordinator's configuration."


class ComputeRefused(Permanent):
    """It answered, and does not want what it was told or asked."""

    code = "compute.refused"
    status = 409
    sentence = "The compute service refused {what} (status {status_code}): {reason}."
    hint = "An administrator looks at the rights of this service's user, and at the compute service's log."


class ComputeTooOld(Permanent):
    code = "compute.too-old"
    status = 409
    sentence = "The compute service does not know microversion {version}, which {what} needs."
    hint = "Upgrade the compute service."


class ExtendNotTold(Permanent):
    """Recorded as a message: the volume itself is as large as was asked for."""

    code = "compute.extend-not-told"
    status = 409
    sentence = "Compute service failed to extend volume: {reason}."
    hint = "The volume has its new size; the server sees it after it was stopped and started, or attached anew."


class ReimageNotTold(Permanent):
    """Recorded as a message: the volume has its new content."""

    code = "compute.reimage-not-told"
    status = 409
    sentence = "The compute service was not told that the volume has its new image: {reason}."
    hint = "Rebuild the server again."


class ExtendNeedsCompute(Permanent):
    """A file that somebody has locked can only be enlarged by who locked it, and nobody can be asked to."""

    code = "compute.extend-needs-it"
    status = 409
    sentence = "The host could not extend volume {volume} while it is in use: {reason}."
    hint = "Detach it, extend it, and attach it again."


class ExtendFailedThere(Permanent):
    code = "compute.extend-failed"
    status = 409
    sentence = "Compute service failed to extend volume {volume}."
    hint = "See the compute service's log for the server, then try again or detach the volume first."


class CompletionMissing(Permanent):
    code = "compute.no-completion"
    status = 409
    sentence = "The compute service did not say within {seconds} s that server {server} has extended volume {volume}."
    hint = "See the compute service's log for the server, then extend the volume again."
