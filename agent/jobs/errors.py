"""What can be wrong with a job, before or while it runs."""

from __future__ import annotations

from agent.base.errors import Conflict, Invalid, NotFound, Permanent, Temporary


class StaleEpoch(Conflict):
    code = "stale-epoch"
    sentence = "Operation {operation} is owned under epoch {known} here; a call with epoch {given} comes too late."
    hint = "Another coordinator took the operation over; give it up."


class KeyReused(Conflict):
    code = "job.key-reused"
    sentence = "Job {key} exists with another kind or other arguments."
    hint = "A job never changes; post the new work under the next attempt."


class Tombstoned(Conflict):
    code = "job.tombstoned"
    sentence = "Job {key} was {reason} before this call arrived, so it is not begun."
    hint = "Post the work under the next attempt if it is still wanted."


class UnknownJob(NotFound):
    code = "job.unknown"
    sentence = "Job {key} is not known here."
    hint = "It was never posted, or its end was acknowledged."


class UnknownKind(Invalid):
    code = "job.unknown-kind"
    sentence = "This agent does not know jobs of kind {kind}, version {version}."
    hint = "Bring the agent to the coordinator's release; `GET /v1/host` lists the kinds that it knows."


class BadArguments(Invalid):
    code = "job.bad-arguments"
    sentence = "The arguments of a {kind} job are not acceptable: {reason}."


class SecretMissing(Invalid):
    code = "job.secret-missing"
    sentence = "A {kind} job with these arguments needs the secrets {names}."
    hint = "Post the same job again with them."


class UnknownBackend(NotFound):
    code = "backend.unknown"
    sentence = "No back end {backend} is configured on this host; there are: {known}."
    hint = "Add a [backends.{backend}] section to the agent's configuration, or choose another host."


class BackendAway(Temporary):
    code = "backend.away"
    retry_after = 5.0
    sentence = "Back end {backend} is away: {reason}"
    hint = "Mend its storage; it is tried again by itself, and so is the work."


class JournalUnavailable(Temporary):
    code = "journal.unavailable"
    retry_after = 5.0
    sentence = "The agent's journal {path} could not be written: {reason}."
    hint = "Free space on its file system and see that it is mounted read-write; nothing was begun."


class JournalNewer(Permanent):
    code = "journal.newer"
    status = 500
    sentence = "The journal {path} was written by a newer release (it has {unknown})."
    hint = "Start the newer release again; an older one does not read its journal."


class AgentStopping(Temporary):
    code = "agent.stopping"
    retry_after = 2.0
    sentence = "This agent is stopping and takes no new jobs."
    hint = "It is tried again by itself when the agent is back."


class JobDefect(Permanent):
    code = "job.defect"
    status = 500
    sentence = "Job {key} met something that it was not made for: {reason}."
    hint = "This is a defect; please report it with the agent's log of this job and the support bundle."


class StaleGeneration(Conflict):
    code = "stale-generation"
    sentence = (
        "Attachments of volume {volume_id} stand at {known} here; the older set {given} is refused "
        "(incarnation.sequence)."
    )
    hint = "A newer decision about this volume was made; nothing is to be done for this one."


class VolumeInUse(Conflict):
    code = "volume.in-use"
    sentence = "Volume {volume_id} is in use on this host by {holder}."
    hint = "Detach it first."


class VolumeWritten(Conflict):
    code = "volume.written"
    sentence = (
        "Volume {volume_id} can be written to on this host by {holder}, and the back end {backend} can not keep one "
        "moment of it."
    )
    hint = "Detach it first, or attach it read-only; a back end on XFS or Btrfs can do it at any time."


class SwitchUnclear(Temporary):
    """Something went wrong while a new content was put in a volume's place: nobody can say yet which one is there."""

    code = "volume.switch-unclear"
    retry_after = 2.0
    sentence = "The new content of volume {volume_id} could not be put in its place: {reason}"
    hint = "Free the volume on its host; it is tried again."


class NoImageStore(NotFound):
    code = "image.no-store"
    sentence = "Host {host} keeps no images."
    hint = "Set images.store to a folder in its configuration, or name a host that does."


class NoDataPort(Temporary):
    code = "transfer.no-data-port"
    sentence = "The data port of host {host} is not open."
    hint = "See the agent's log on that host; it is tried again."


class NoConversion(Temporary):
    code = "image.no-conversion"
    sentence = "Host {host} is not set up to make volumes from images."
    hint = "See the agent's log on that host; it is tried again."
