"""What may happen to a snapshot."""

from __future__ import annotations

from coordinator.lifecycle.table import NEW, Lifecycle, Rule

SNAPSHOT = Lifecycle(
    noun="snapshot",
    stable=frozenset({"available", "error", "error_deleting", "deleted"}),
    transient=frozenset({"creating", "deleting", "restoring", "unmanaging"}),
    rules=(
        Rule("create", (NEW,), "creating"),
        Rule("created", ("creating",), "available"),
        Rule("create_failed", ("creating",), "error"),
        Rule("delete", ("available", "error", "error_deleting"), "deleting", "Wait until the running work has ended."),
        Rule("deleted", ("deleting",), "deleted"),
        Rule("forgotten", ("available", "error", "error_deleting"), "deleted", "Cancel the work on it first."),
        Rule("delete_failed", ("deleting",), "error_deleting"),
        Rule("manage", (NEW,), "creating"),
        Rule("unmanage", ("available", "error"), "unmanaging", "Wait until the running work has ended."),
        Rule("unmanaged", ("unmanaging",), "deleted"),
        Rule("unmanage_failed", ("unmanaging",), "error"),
        Rule("revert", ("available",), "restoring", "Wait until the running work has ended."),
        Rule("reverted", ("restoring",), "available"),
        Rule("repaired", ("error", "error_deleting"), "available"),
        Rule("damaged", ("available", "error", "error_deleting"), "error"),
    ),
)
