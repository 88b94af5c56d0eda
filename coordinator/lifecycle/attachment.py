"""What may happen to an attachment (the `attach_status` of its row)."""

from __future__ import annotations

from coordinator.lifecycle.table import NEW, SAME, Lifecycle, Rule

ATTACHMENT = Lifecycle(
    noun="attachment",
    stable=frozenset({"reserved", "attaching", "attached", "error_attaching", "error_detaching", "deleted"}),
    transient=frozenset({"connecting", "detaching"}),
    rules=(
        Rule("reserve", (NEW,), "reserved"),
        Rule("connect_now", (NEW,), "attaching"),
        Rule("attach_now", (NEW,), "attached"),
        Rule("connect", ("reserved", "attaching"), "attaching"),
        Rule("complete", ("reserved", "attaching"), "attached"),
        Rule("host_attach", (NEW,), "connecting"),
        Rule("host_attached", ("connecting",), "attached"),
        Rule("host_attach_failed", ("connecting",), "error_attaching"),
        Rule("connect_failed", ("attaching",), "reserved"),
        Rule("connection_changed", ("attaching", "attached"), SAME),
        Rule("detach", ("reserved", "attaching", "attached", "error_attaching", "error_detaching"), "detaching",
             "Wait until the running work has ended."),
        Rule("gone", ("reserved", "attaching", "attached", "detaching", "error_attaching", "error_detaching",
                      "connecting"), "deleted"),
        Rule("detach_failed", ("detaching",), "error_detaching"),
    ),
)  # fmt: skip
