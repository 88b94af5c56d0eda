"""What can go wrong between the coordinator and its database."""

from __future__ import annotations

from agent.base.errors import Conflict, Invalid, Permanent, Temporary


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
    hint = "Check its server, or the disk that it lies on; work that was accepted goes on by itself."


class SessionLost(DatabaseUnavailable):
    """The server ended a session in the middle of its transaction: nothing was kept, and the same again may do."""

    code = "state.session-lost"
    sentence = "The database ended a session in the middle of its work: {reason}. Nothing was changed."
    hint = "Its server was stopped, or this machine stood still for too long; what was accepted goes on by itself."


class CommitInDoubt(DatabaseUnavailable):
    """The connection broke between asking for the commit and hearing of it; `backend` was the server's process.

    Calls of a shared transaction whose numbers are in `failed` were no part of it any more.
    """

    backend: int | None = None
    failed: frozenset[int] = frozenset()

    code = "state.commit-in-doubt"
    sentence = "The database went away while it committed ({reason}); what was asked for may have been done."
    hint = "Look before you ask again; work that was accepted goes on by itself."


class NotStorable(Invalid):
    """A value is too long, too large, or holds what no text can hold."""

    code = "state.not-storable"
    sentence = "Invalid input received: a value can neither be stored nor looked for ({reason})."
    hint = "Shorten it, and use no NUL characters."


class TooManyKeys(Invalid):
    code = "state.too-many-keys"
    sentence = "Invalid input received: {count} keys of metadata are more than one resource may have ({most})."
    hint = "Remove keys that are not needed any more, or set all of them at once (PUT)."


class DatabaseNotUsable(Permanent):
    code = "state.database-not-usable"
    status = 503
    exit_code = 78
    sentence = "The database {url} can not be used: {reason}."
    hint = "Correct state.url: postgresql://USER@HOST:PORT/NAME, encoding UTF8, PostgreSQL 13 or newer."


class DriverMissing(Permanent):
    code = "state.driver-missing"
    status = 503
    exit_code = 78
    sentence = "The database {url} needs the Python package {package}, which is not installed."
    hint = "Install it into the environment of the coordinator: pip install 'brickyard[postgresql]'."


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


class ConditionUnmet(TransitionRefused):
    """Its status would allow it, but something else that depends on it does not."""

    code = "state.condition-unmet"
    sentence = "Invalid {noun}: {noun} {id} has status {status}, but {event} is refused now: {why}."


class CachedImage(TransitionRefused):
    """Clones would carry whatever is done to it."""

    code = "volume.cached-image"
    sentence = "Invalid volume: volume {id} is kept by the image cache for clones; {event} is refused."
    hint = "Use a clone of it (openstack volume create --source {id}), or delete it: the next volume fetches the image."


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
