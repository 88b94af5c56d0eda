"""Another key for an encrypted volume."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from coordinator.api.acting import owned_volume, requester
from coordinator.api.brickyard.operations import OperationAnswer, view
from coordinator.api.call import Call
from coordinator.api.fields import Body, Boolean
from coordinator.api.route import Resource, post
from coordinator.keys.store import KeyStore
from coordinator.operations.engine import Engine
from coordinator.operations.rekey_volume import accept_rekey
from coordinator.state.operations import Operation

_RULE = "brickyard:volumes:rekey"


class RekeyBody(Body):
    """`master_key`: the content is written anew under another master key, too, beside the volume at first."""

    master_key: Boolean = False


async def rekey(call: Call) -> dict[str, Any]:
    """The key is made here; a value can not be given."""
    keys, master_key = call.services.get(KeyStore), call.valid(RekeyBody).master_key

    def change(conn: Connection) -> tuple[Operation, None]:
        row = owned_volume(conn, call, call.params["volume_id"], _RULE)
        return accept_rekey(conn, requester(call, row.project_id), keys, row, master_key=master_key), None

    operation, _ = await call.services.get(Engine).submit(change)
    return view(call, operation)


def resource() -> Resource:
    """The route."""
    return Resource(
        "rekeying",
        "Another key for an encrypted volume.",
        (
            post("/{volume_id}/rekey", rekey, _RULE, "Replace the key of a detached volume where it lies.",
                 body=RekeyBody, answer=OperationAnswer, answer_key="operation", status=202),
        ),
        prefix="/brickyard/v1/volumes",
    )  # fmt: skip
