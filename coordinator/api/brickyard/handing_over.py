"""Who handed a volume to whom: its offers, the ended ones too, which the transfers of Block Storage no longer show."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from coordinator.api.call import Call
from coordinator.api.fields import Answer, Time
from coordinator.api.route import Resource, get
from coordinator.state import transfers


class PastTransfer(Answer):
    """`ended_at` is when it was taken up (`accepted`), taken back, or ended with its volume."""

    id: str
    name: str | None
    source_project_id: str
    destination_project_id: str | None
    accepted: bool
    no_snapshots: bool
    created_at: Time
    ended_at: Time | None


class PastTransfers(Answer):
    transfers: list[PastTransfer]


def _view(row: Row[Any]) -> dict[str, Any]:
    made = {name: row._mapping[name] for name in PastTransfer.model_fields if name != "ended_at"}
    return {**made, "ended_at": row.deleted_at}


async def listed(call: Call) -> dict[str, Any]:
    rows = await call.services.db.read(lambda conn: transfers.of_volume(conn, call.params["volume_id"]))
    return {"transfers": [_view(row) for row in rows]}


def resource() -> Resource:
    """The route."""
    return Resource(
        "handing_over",
        "Past transfers of a volume.",
        (
            get("/volumes/{volume_id}/transfers", listed, "volume:get_all_projects",
                "List all offers of a volume, deleted or not, to other projects.", answer=PastTransfers),
        ),
        prefix="/brickyard/v1",
    )  # fmt: skip
