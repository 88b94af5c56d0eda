"""What can go wrong between a coordinator and an agent, and between two agents."""

from __future__ import annotations

from agent.base.errors import Conflict, Invalid, Permanent, Temporary


class Undelivered(Temporary):
    """No byte of the request was sent: the other side can not know of it."""

    code = "wire.undelivered"
    status = 503
    exit_code = 7
    sentence = "{peer} at {address} could not be reached: {reason}."
    hint = "Check that the agent runs there and that its control port is open; it is tried again by itself."


class OutcomeUnknown(Temporary):
    """The request may have been delivered, but its answer was not received."""

    code = "wire.outcome-unknown"
    status = 503
    exit_code = 7
    sentence = "{peer} at {address} gave no answer: {reason}."
    hint = "What became of the request is asked again by itself; nothing is done twice."


class JobFenced(Temporary):
    code = "job.fenced"
    sentence = "Job {key} works on a back end that other hosts serve too, and was given up here: {reason}."
    hint = "It is done again by itself, here or on another host of the cluster."


class JobTooLate(Temporary):
    code = "job.too-late"
    sentence = "Job {key} came {seconds} s after it was sent, too late to be begun on a back end that hosts share."
    hint = "If this repeats, set the clocks of host and coordinator by the network (timedatectl set-ntp true)."


class BadAnswer(Temporary):
    """The other side answered with something that is not the agreed form."""

    code = "wire.bad-answer"
    status = 502
    retry_after = 5.0
    sentence = "{peer} at {address} answered {status} with something unexpected: {reason}."
    hint = "Check that both sides are at most one release apart."


class PeerTooOld(Permanent):
    """It is of a release that is not spoken to any more."""

    code = "wire.peer-too-old"
    status = 503
    exit_code = 6
    sentence = "{peer} is of release {found}, which is too old: {oldest} and newer are spoken to. It gets no work."
    hint = "Upgrade it. Releases are passed through one by one: first to {oldest}, if its notes say so."


class PeerRefused(Permanent):
    """The certificate of the other side does not allow this."""

    code = "wire.peer-refused"
    status = 403
    exit_code = 3
    sentence = "The certificate of the caller is refused: {reason}."
    hint = "Use the certificate of the role that this needs; a revoked or expired one is replaced by enrolling again."


class IdentityMissing(Permanent):
    """There is no key and certificate yet."""

    code = "wire.identity-missing"
    status = 503
    exit_code = 3
    sentence = "There is no certificate in {path}."
    hint = "Enrol this host: `brickyard host token` on the coordinator, then `brickyard-agent join TOKEN` here."


class IdentityBroken(Permanent):
    """Key, certificate and CA on disk do not fit together."""

    code = "wire.identity-broken"
    status = 503
    exit_code = 3
    sentence = "The key and certificate in {path} can not be used: {reason}."
    hint = "Enrol this host again with a fresh join token."


class TokenInvalid(Invalid):
    """A join token that can not be read."""

    code = "enrolment.token-invalid"
    sentence = "This is not a join token: {reason}."
    hint = "Copy the whole line that `brickyard host token` printed; it begins with 'byj1.'."


class TokenRefused(Permanent):
    """The coordinator does not accept the token; it never says which part is wrong."""

    code = "enrolment.token-refused"
    status = 403
    exit_code = 3
    sentence = "The join token is refused: it is unknown, expired, or was used with another key."
    hint = "Make a new one with `brickyard host token`."


class HostEnrolled(Conflict):
    """A token that is not bound to a host can not take over the name of an enrolled one."""

    code = "enrolment.host-enrolled"
    sentence = "A host named {host} is enrolled already, with another key."
    hint = "Choose another name, or make a token for this host: `brickyard host token --host {host}`."


class WrongCoordinator(Permanent):
    """The coordinator at the token's address does not hold the CA that the token names."""

    code = "enrolment.wrong-coordinator"
    status = 502
    exit_code = 3
    sentence = "The coordinator at {address} does not have the certificate authority that the token names."
    hint = "Something answers in the coordinator's place, or the token is of another site. Nothing was sent to it."


class TicketUnknown(Permanent):
    """No such ticket on the data port for this peer; also told when the peer or direction is wrong."""

    code = "transfer.unknown"
    status = 404
    exit_code = 4
    sentence = "There is no such transfer for {peer}."
    hint = "It was closed, it expired, or it is meant for another host; the operation asks for a new one by itself."


class TicketBusy(Temporary):
    """One reader or writer at a time."""

    code = "transfer.busy"
    status = 409
    retry_after = 0.5
    sentence = "The transfer is being read or written already."


class TransferTooLarge(Permanent):
    code = "transfer.too-large"
    status = 413
    sentence = "More bytes were sent than the {limit} that were announced."
    hint = "Announce the true size, or raise the limit on image sizes."


class TransferMismatch(Conflict):
    """Offsets of sender and receiver do not meet, or the source changed underneath."""

    code = "transfer.mismatch"
    sentence = "The transfer can not go on at byte {offset}: {reason}."
    hint = "Start the transfer again."


class TransferBroken(Temporary):
    """The connection broke more often than allowed without a byte of progress."""

    code = "transfer.broken"
    retry_after = 5.0
    sentence = "The transfer with {peer} at {address} stopped at byte {offset}: {reason}."
    hint = "Check the network between the hosts; the operation tries again by itself."


class TransferDenied(Permanent):
    """The far side's disk refused to take or give the bytes."""

    code = "transfer.storage"
    status = 507
    sentence = "The other host could not store or read the bytes: {reason}."
    hint = "Free space on the host that keeps the images, then try again."
