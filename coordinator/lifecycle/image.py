"""What may happen to an image of the built-in catalog (statuses as Image v2 clients know them)."""

from __future__ import annotations

from coordinator.lifecycle.table import NEW, Lifecycle, Rule

IMAGE = Lifecycle(
    noun="image",
    stable=frozenset({"queued", "active", "deactivated", "killed", "deleted"}),
    transient=frozenset({"saving", "deleting"}),
    rules=(
        Rule("create", (NEW,), "queued"),
        Rule("upload", ("queued",), "saving", "An image takes its data once; make a new image instead."),
        Rule("uploaded", ("saving",), "active"),
        Rule("upload_lost", ("saving",), "queued"),
        Rule("upload_refused", ("saving",), "killed"),
        Rule("deactivate", ("active",), "deactivated", "An image without data can not be used in any case."),
        Rule("reactivate", ("deactivated",), "active"),
        Rule("delete", ("queued", "active", "deactivated", "killed"), "deleting", "Wait until the upload has ended."),
        Rule("deleted", ("deleting",), "deleted"),
        Rule("delete_failed", ("deleting",), "killed"),
    ),
)
