"""The status that a volume's attachments call for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row

from coordinator.state import attachments, metadata
from coordinator.state.locks import hold
from coordinator.state.tables.volumes import volumes
from coordinator.state.transition import move_if

MODE_KEY = "attached_mode"


def settle(conn: Connection, volume_id: str) -> Sequence[Row[Any]]:
    """Give the volume the status that its attachments call for; returns them.

    Who else ends an attachment, or work that the volume comes back from, is seen, or waits.
    """
    hold(conn, volumes, volume_id)
    left = attachments.of_volume(conn, volume_id)
    if not left:
        metadata.remove(conn, "volume-admin", volume_id, MODE_KEY)
        move_if(conn, "volume", volume_id, "attachment_gone", attach_status="detached")
    elif any(row.attach_status == "attached" for row in left):
        move_if(conn, "volume", volume_id, "attachment_complete", attach_status="attached")
    elif all(row.attach_status == "reserved" for row in left):
        move_if(conn, "volume", volume_id, "attachment_left", attach_status="detached")
    return left
