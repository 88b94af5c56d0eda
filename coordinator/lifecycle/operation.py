"""What may happen to an operation, and per kind what it means when the agent can not be reached."""

from __future__ import annotations

from typing import Literal

from coordinator.lifecycle.table import NEW, Lifecycle, Rule

OPERATION = Lifecycle(
    noun="operation",
    stable=frozenset({"done", "failed", "cancelled", "needs-attention"}),
    transient=frozenset({"running", "undoing"}),
    rules=(
        Rule("accept", (NEW,), "running"),
        Rule("finish", ("running",), "done"),
        Rule("fail", ("running",), "undoing"),
        Rule("undone", ("undoing",), "failed"),
        Rule("cancelled", ("undoing",), "cancelled"),
        Rule("undo_failed", ("undoing",), "needs-attention"),
        Rule("restored", ("running", "undoing"), "needs-attention"),
        Rule("retry", ("needs-attention",), "undoing"),
        Rule("done_after_all", ("undoing",), "running"),
        Rule("elsewhere", ("undoing",), "running"),
    ),
)

Unreachable = Literal["elsewhere-if-undelivered", "wait"]

UNREACHABLE: dict[str, Unreachable] = {
    "create_volume": "elsewhere-if-undelivered",
    "delete_volume": "wait",
    "extend_volume": "wait",
    "create_snapshot": "wait",
    "delete_snapshot": "wait",
    "revert_volume": "wait",
    "recrypt_volume": "wait",
    "rekey_volume": "wait",
    "manage_volume": "wait",
    "unmanage_volume": "wait",
    "manage_snapshot": "wait",
    "unmanage_snapshot": "wait",
    "upload_volume": "wait",
    "upload_to_service": "wait",
    "import_image": "wait",
    "reimage_volume": "wait",
    "connect_volume": "wait",
    "disconnect_volume": "wait",
    "attach_host": "wait",
    "detach_host": "wait",
    "upload_image": "wait",
    "download_image": "wait",
    "delete_image": "wait",
    "clear_returned": "wait",
}
"""A create is placed on another host only when its job was provably not delivered; all else waits, visibly."""
