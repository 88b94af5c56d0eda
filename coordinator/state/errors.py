"""What can go wrong between the coordinator and its database."""

from __future__ import annotations

from agent.base.errors import Conflict, Permanent, Temporary


class DatabaseBusy(Permanent):
    code = "state.database-busy"
    status = 503
    exit_code = 6
    sentence = "The database {path} is in use by process {pid}."
    hint = "Stop that coordinator first, or give this one a state directory of its own."


class DatabaseUnavailable(Temporary):
    """The disk is full, the file is locked by another program, the server is away: nothing was changed."""

    code = "state.database-unavailable"
    status = 503
    exit_code = 6
    retry_after = 2.0
    sentence = "The database can not be used just now: {reason}."
    hint = "Check the disk that it lies on; work that was accepted goes on by itself."


class SchemaTooNew(Permanent):
    code = "state.schema-too-new"
    status = 503
    exit_code = 6
    sentence = "The database has schema {found}; this release knows schemas up to {known}."
    hint = "Start the newer release; or stop, and put a backup that this release made in the place of the file."


class TransitionRefused(Conflict):
    """A status may not move this way; says from which state, by which rule, and what would help."""

    code = "state.transition-refused"
    status = 400
    sentence = "Invalid {noun}: {noun} {id} has status {status}; {event} needs one of: {allowed}."
    hint = "{help}"


class LeaseLost(Conflict):
    """Another coordinator has taken the operation over; this one must not touch it any more."""

    code = "state.lease-lost"
    status = 409
    sentence = "Operation {id} is no longer owned by this coordinator (epoch {epoch})."
    hint = "Nothing to do: the present owner goes on with it."


class SchemaTooOld(Permanent):
    code = "state.schema-too-old"
    status = 503
    exit_code = 6
    sentence = "The database has schema {found}; this release needs {known}."
    hint = "Make a backup, then run: brickyard-coordinator db upgrade."
