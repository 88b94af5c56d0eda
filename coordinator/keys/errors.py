"""What can go wrong with keys. No error ever carries a value."""

from __future__ import annotations

from agent.base.errors import Conflict, Invalid, NotFound, Permanent, Temporary


class KeyFileInvalid(Invalid):
    code = "keys.file-invalid"
    sentence = "{path} holds no key-encryption key: {problem}."
    hint = "Restore it from your backup; a new site makes one by itself at its first start."


class WrongKeyEncryptionKey(Permanent):
    """The key given at start is not the one that the stored secrets are sealed with."""

    code = "keys.wrong-kek"
    status = 503
    exit_code = 6
    sentence = "The key-encryption key in {path} does not open this database: it is sealed with key {stored}."
    hint = "Give the coordinator the key-encryption key that belongs to this database; nothing has been changed."


class SecretDamaged(Permanent):
    code = "keys.damaged"
    status = 500
    sentence = "Secret {id} can not be opened: its sealed value does not fit its key, id or project."
    hint = "Restore the database from a backup; volumes that use this secret can not be opened without it."


class SecretInvalid(Invalid):
    code = "keys.invalid"
    sentence = "The secret is not acceptable: {reason}."


class KeyEncryptionKeyMissing(Permanent):
    code = "keys.kek-missing"
    exit_code = 78
    sentence = "The secrets of this site are sealed, and there is no key file {path} that opens them."
    hint = "Copy the key file of another coordinator of the site (or your copy of it) there, mode 0400."


class SecretNotFound(NotFound):
    code = "keys.not-found"
    sentence = "Secret {id} could not be found."
    hint = "List yours with: brickyard key list."


class SecretInUse(Conflict):
    code = "keys.in-use"
    sentence = "Secret {id} is used by {noun} {user}."
    hint = "Delete that first; without the secret it could never be opened again."


class ManagerAway(Temporary):
    code = "keys.manager-away"
    retry_after = 10.0
    sentence = "The key manager at {url} can not be used now: {reason}"
    hint = "Look at it and at the network between; it is tried again."


class ManagerRefuses(Permanent):
    code = "keys.manager-refuses"
    status = 502
    sentence = "The key manager refused {what} with {status}."
    hint = "{remedy}."


class NotDeposited(Temporary):
    code = "keys.not-deposited"
    retry_after = 5.0
    sentence = "The key of volume {volume} is not at the key manager yet, as the volume is worked on."
    hint = "Try again in a moment."


class NotTheSame(Permanent):
    code = "keys.not-the-same"
    status = 502
    sentence = "Secret {secret} at the key manager {manager} does not hold the key that was put there."
    hint = "Look at who writes there, and delete that secret there; until then the key stays where it was."


class NoManager(Invalid):
    code = "keys.no-manager"
    exit_code = 78
    sentence = "Keys lie at {manager}, which is not configured."
    hint = "Keep the table [keys.{manager}] until they have been moved; keys.manager says where they go."
