"""What can go wrong with an operation as such."""

from __future__ import annotations

from agent.base.errors import Conflict, Permanent, Temporary


class Cancelled(Permanent):
    code = "operation.cancelled"
    status = 409
    exit_code = 7
    sentence = "The work was cancelled on request."


class UndoFailed(Permanent):
    """Both causes are kept, each also as users may read it: what failed first, and what failed while it was undone."""

    code = "operation.undo-failed"
    status = 500
    sentence = "{cause} Undoing the finished steps failed too, at step {step}: {undo_cause}"
    hint = "Mend the second cause, then run: brickyard operation retry {operation}."


class StillRunning(Temporary):
    code = "operation.still-running"
    status = 503
    retry_after = 5.0
    sentence = "The work goes on (operation {operation}); it was not done within {seconds} s."
    hint = "Ask again later, or watch it with: brickyard operation watch {operation}."


class WaitedTooLong(Permanent):
    code = "operation.host-away"
    status = 503
    sentence = "Host {host} could not be reached for {seconds} s."
    hint = "Bring the host back, then try again; see: brickyard host show {host}."


class HostDrained(Permanent):
    code = "operation.host-drained"
    status = 503
    sentence = "Host {host} is drained, and was not enabled again within {seconds} s."
    hint = "When the host is ready: brickyard host enable {host}. Then try again."


class NotCancellable(Conflict):
    code = "operation.not-cancellable"
    sentence = "Operation {operation} is {state}; only running work can be cancelled."


class NotRetryable(Conflict):
    code = "operation.not-retryable"
    sentence = "Operation {operation} is {state}; only one that needs attention can be retried."


class WorkUnknown(Conflict):
    code = "operation.kind-unknown"
    sentence = "Operation {operation} is work that this release does not know: {kind}, version {version}."
    hint = "Retry it where a coordinator of the release runs that began it, or see: brickyard volume repair."


class UnknownHost(Permanent):
    code = "operation.unknown-host"
    status = 409
    sentence = "Host {host} is not enrolled any more."
    hint = "Enrol it again under the same name, then try again."


class VolumeShared(Conflict):
    code = "volume.shared"
    sentence = "Volume {id} is kept for more than one server; it is not given another content."
    hint = "Detach it from all servers but the one that is rebuilt."
