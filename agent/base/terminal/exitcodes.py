"""What the exit code of a command means; programs may rely on them."""

from __future__ import annotations

OK, FAILED, USAGE, DENIED, MISSING, CONFLICT, UNFIT, AWAY, QUOTA, NO_PLACE = range(10)
UNAVAILABLE, DEFECT, CANNOT_CREATE, MISCONFIGURED = 69, 70, 73, 78
INTERRUPTED, BROKEN_PIPE = 130, 141

MEANINGS = {
    OK: "Done.",
    FAILED: "Failed; the sentence says how. `doctor`: a check found something.",
    USAGE: "The command or a value is not acceptable; nothing was done.",
    DENIED: "Not logged in, or not allowed.",
    MISSING: "The named thing does not exist, or not for this caller.",
    CONFLICT: "The thing is in a state that does not allow this.",
    UNFIT: "This installation can not be used as it is: database, key-encryption key, CA, privileges.",
    AWAY: "The other side did not answer, or the work was cancelled; what was accepted goes on.",
    QUOTA: "A quota would be exceeded.",
    NO_PLACE: "No pool can take the volume.",
    UNAVAILABLE: "A port can not be listened on.",
    DEFECT: "A defect, or a privileged daemon that ended; systemd starts the agent again.",
    CANNOT_CREATE: "A folder or file can not be made or used.",
    MISCONFIGURED: "The command would load foreign packages, or the host has another name than it enrolled with.",
    INTERRUPTED: "Interrupted by Ctrl-C; what was accepted goes on.",
    BROKEN_PIPE: "The reader of the output went away.",
}
