"""What the host of a volume is told to offer to other hosts: always the complete set, as the rows have it.

Used by every workflow that attaches a volume elsewhere, whoever keeps the attachment. CHAP secrets are made from one
secret of the site and the attachment's id, so that each call gives the same and none is stored.
"""

from __future__ import annotations

import base64
import hmac
from typing import Any, Literal

from sqlalchemy import Connection, Row

from agent.wire.chap import attachment_of
from agent.wire.jobs import Connection as Reached
from agent.wire.jobs import ExportApply, WantedExport, WireSecret
from coordinator.keys.store import KeyStore
from coordinator.operations.transports import auth_of
from coordinator.operations.workflow import JobCall
from coordinator.state import attachments
from coordinator.state.operations import Operation
from coordinator.state.volumes import backend_of

AGAIN_ON = frozenset({"stale-generation"})
"""A newer set was told meanwhile: the step is done again with the set as it is then."""
_CHAP_CHARACTERS = 24


def export_call(conn: Connection, keys: KeyStore, volume: Row[Any], *, without: str | None = None) -> JobCall | None:
    """The job that offers the volume to all its consumers but the attachment `without`. None: it lies nowhere.

    The set and its generation belong together: the step that makes this call is `pinned`.
    """
    if volume.host_id is None:
        return None
    rows = [row for row in attachments.of_volume(conn, volume.id) if _is_offered(row) and row.id != without]
    wanted = tuple(
        WantedExport(
            attachment_id=row.id,
            protocol=row.transport,
            initiator=row.initiator,
            mode=_mode(row),
            auth=auth_of(row.transport),
        )
        for row in rows
    )
    job = ExportApply(
        backend=backend_of(volume),
        volume_id=volume.id,
        generation=attachments.next_generations(conn, volume.id, volume.host_id, 1)[0],
        wanted=wanted,
        encrypted=volume.encryption_format is not None,
    )
    secrets = {
        f"chap.{one.attachment_id}": chap_secret(conn, keys, one.attachment_id) for one in wanted if one.auth == "chap"
    }
    return JobCall(volume.host_id, job, secrets)


def connection_of(operation: Operation, step: str, attachment_id: str) -> Reached | None:
    """How the attachment's consumer reaches the volume, from the stored result of an export step; None: locally."""
    result = operation.results.get(step)
    for one in (result or {}).get("exported", ()):
        if one["attachment_id"] == attachment_id:
            return Reached.model_validate(one["connection"])
    return None


def chap_secret(conn: Connection, keys: KeyStore, username: str) -> WireSecret:
    """The CHAP secret of a user, or of its attachment: letters and digits alone, 120 bits, the same each time."""
    digest = hmac.digest(keys.site_secret(conn), f"brickyard chap {attachment_of(username)}".encode(), "sha256")
    text = base64.b32encode(digest).decode().lower()[:_CHAP_CHARACTERS]
    return WireSecret.of("passphrase", text.encode())


def _is_offered(row: Row[Any]) -> bool:
    """What a host of ours detaches is offered until it says that nothing is left; what others keep ends at once."""
    return row.transport is not None and (row.owner == "agent" or row.attach_status != "detaching")


def _mode(row: Row[Any]) -> Literal["rw", "ro"]:
    return "ro" if row.attach_mode == "ro" else "rw"
