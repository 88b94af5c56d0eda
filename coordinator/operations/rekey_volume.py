"""rekey_volume: an encrypted volume gets another key where it lies; the old one opens it no more.

Both keys are kept until the host has said which of them opens the volume. Undoing is the same job with the two
exchanged: it leaves the old key as the only one, however far the first job had come.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row

from agent.base.errors import BrickyardError, Permanent
from agent.wire.jobs import VolumeRekey
from coordinator.keys.store import KeyStore
from coordinator.operations.accept import Requester, accept
from coordinator.operations.recrypt_volume import NewType, accept_recrypt
from coordinator.operations.volume_calls import key_secret, volume_row
from coordinator.operations.workflow import JobCall, JobStep, Workflow
from coordinator.state import enrolment, messages, volumes
from coordinator.state.operations import Operation
from coordinator.state.transition import move, move_if
from coordinator.state.volumes import backend_of

_UNTOUCHED = frozenset({"job.unknown-kind", "volume.in-use"})
"""Refusals that come before anything is written."""


class NotEncrypted(Permanent):
    code = "rekey.not-encrypted"
    status = 400
    sentence = "Invalid volume: volume {volume} is not encrypted, so it has no key."
    hint = "Give it an encrypted type: openstack volume set --type T --migration-policy on-demand {volume}."


def accept_rekey(
    conn: Connection, requester: Requester, keys: KeyStore, row: Row[Any], *, master_key: bool
) -> Operation:
    """`master_key`: the content is written anew under another one. Raises NotEncrypted, TransitionRefused (400)."""
    if row.encryption_key_id is None:
        raise NotEncrypted(volume=row.id)
    if master_key:
        columns = {name: getattr(row, name)
                   for name in ("encryption_format", "encryption_cipher", "encryption_key_size")}  # fmt: skip
        return accept_recrypt(conn, requester, keys, row, NewType(row.volume_type_id, columns))
    guards = (
        volumes.has_no_attachments(row.id),
        volumes.has_no_snapshots(row.id),
        volumes.is_no_source(volume_id=row.id),
    )
    move(conn, "volume", row.id, "rekey", guards=guards)
    key_id = keys.generate(conn, project_id=row.project_id, user_id=requester.user_id)
    args = {"key_id": key_id, "old_key_id": row.encryption_key_id}
    return accept(conn, requester, kind="rekey_volume", resource_type="volume", resource_id=row.id, args=args)


def workflow(keys: KeyStore) -> Workflow:
    """Version 1 of the workflow."""

    def there(conn: Connection, operation: Operation) -> JobCall:
        return _call(conn, keys, operation, "old_key_id", "key_id")

    def back(conn: Connection, operation: Operation) -> JobCall | None:
        untouched = (operation.error or {}).get("code") in _UNTOUCHED and operation.attempt("rekey") == 1
        return None if untouched else _call(conn, keys, operation, "key_id", "old_key_id")

    def finished(conn: Connection, operation: Operation) -> None:
        args = operation.args
        move(conn, "volume", operation.resource_id, "rekeyed", attention=None, encryption_key_id=args["key_id"])
        keys.delete(conn, args["old_key_id"])

    def failed(conn: Connection, operation: Operation, error: BrickyardError) -> None:
        if enrolment.host(conn, volume_row(conn, operation).host_id) is None:
            # Nobody has said which key opens it, so both stay.
            _attention(conn, operation, str(error))
            return
        keys.delete(conn, operation.args["key_id"])
        move_if(conn, "volume", operation.resource_id, "rekeyed")
        messages.record(conn, operation, error)

    return Workflow(
        kind="rekey_volume",
        version=1,
        steps=(JobStep("rekey", there, undo=back),),
        finished=finished,
        failed=failed,
        attention=_attention,
    )


def _call(conn: Connection, keys: KeyStore, operation: Operation, old: str, new: str) -> JobCall:
    row, args = volume_row(conn, operation), operation.args
    secrets = {"source": key_secret(conn, keys, args[old]), "volume": key_secret(conn, keys, args[new])}
    return JobCall(row.host_id, VolumeRekey(backend=backend_of(row), volume_id=row.id), secrets)


def _attention(conn: Connection, operation: Operation, reason: str) -> None:
    move_if(conn, "volume", operation.resource_id, "rekey_unclear", attention=reason)
