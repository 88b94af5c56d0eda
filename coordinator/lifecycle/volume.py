"""What may happen to a volume. Statuses are the ones that Block Storage clients know."""

from __future__ import annotations

from coordinator.lifecycle.table import NEW, PREVIOUS, SAME, Lifecycle, Rule

_REST = ("available", "error", "error_deleting", "error_extending", "error_managing", "error_restoring")
_FORCED = (*_REST, "attaching", "detaching", "reserved")
_BUSY = "It is attached or busy; detach it, or use a type that allows multiattach."
_FREE = "Detach it, or take its transfer back, or wait until the running work has ended."
_REPAIR = "See what is wrong with: brickyard volume repair --dry-run VOLUME."

VOLUME = Lifecycle(
    noun="volume",
    stable=frozenset(
        {*_REST, "in-use", "reserved", "attaching", "detaching", "awaiting-transfer", "deleted"}
    ),
    transient=frozenset(
        {"creating", "downloading", "extending", "deleting", "reverting", "unmanaging", "uploading",
         "retyping"}
    ),
    rules=(
        Rule("create", (NEW,), "creating"),
        Rule("download", ("creating",), "downloading"),
        Rule("created", ("creating", "downloading"), "available"),
        Rule("create_failed", ("creating", "downloading"), "error"),
        Rule("delete", _REST, "deleting", _FREE),
        Rule("delete_forced", _FORCED, "deleting", "Detach it first."),
        Rule("delete_cascade", _REST, "deleting", _FREE, remember=True),
        Rule("delete_cascade_forced", _FORCED, "deleting", "Detach it first.", remember=True),
        Rule("delete_kept", ("deleting",), PREVIOUS),
        Rule("deleted", ("deleting",), "deleted"),
        Rule("delete_failed", ("deleting",), "error_deleting"),
        Rule("extend", ("available",), "extending",
             "An attached volume can be extended from microversion 3.42.", remember=True, alters=True),
        Rule("extend_attached", ("available", "in-use"), "extending", _REPAIR, remember=True, alters=True),
        Rule("extended", ("extending",), PREVIOUS),
        Rule("extend_refused", ("extending",), PREVIOUS),
        Rule("extend_failed", ("extending",), "error_extending"),
        Rule("snapshot", ("available",), SAME, "A volume in use can be snapshotted with force."),
        Rule("snapshot_attached", ("available", "in-use"), SAME, "Wait until the running work has ended."),
        Rule("set_readonly", ("available",), SAME, _FREE),
        Rule("retype", ("available", "in-use"), SAME, "Wait until the running work has ended.", alters=True),
        Rule("recrypt", ("available",), "retyping", _FREE, alters=True),
        Rule("recrypted", ("retyping",), "available"),
        Rule("recrypt_unclear", ("retyping",), "error"),
        Rule("rekey", ("available",), "retyping", _FREE, alters=True),
        Rule("rekeyed", ("retyping",), "available"),
        Rule("rekey_unclear", ("retyping",), "error"),
        Rule("reserve", ("available",), "attaching", _BUSY, alters=True),
        Rule("unreserve", ("attaching",), "available"),
        Rule("attachment_reserve", ("available",), "reserved", _BUSY, alters=True),
        Rule("attachment_share", ("reserved", "attaching", "in-use"), SAME, _BUSY),
        Rule("attachment_left", ("attaching", "detaching", "in-use"), "reserved"),
        Rule("initialize", ("available", "attaching"), "attaching", _BUSY, alters=True),
        Rule("attach", ("available", "attaching"), "in-use", _BUSY, alters=True),
        Rule("attachment_connect", ("reserved", "attaching", "available"), "attaching"),
        Rule("attachment_complete", ("attaching", "reserved", "in-use", "detaching"), "in-use"),
        Rule("used_again", ("attaching", "reserved", "in-use", "detaching", "error", "error_extending"), "in-use"),
        Rule("attachment_gone", ("reserved", "attaching", "detaching", "in-use", "error"), "available"),
        Rule("begin_detaching", ("in-use",), "detaching", "Only what is attached can be detached."),
        Rule("roll_detaching", ("detaching",), "in-use"),
        Rule("transfer_offer", ("available",), "awaiting-transfer",
             "Detach it, wait until the running work has ended, or take up the offer that there is.", alters=True),
        Rule("transfer_withdrawn", ("awaiting-transfer",), "available"),
        Rule("transfer_taken", ("awaiting-transfer",), "available"),
        Rule("host_attach", ("available", "in-use"), "attaching",
             "It is attached or busy; detach it first.", remember=True, alters=True),
        Rule("host_attach_failed", ("attaching",), PREVIOUS),
        Rule("host_detach", ("in-use", "attaching", "available", "error", "error_extending"), "detaching", _REPAIR,
             remember=True),
        Rule("host_detach_failed", ("detaching",), PREVIOUS),
        Rule("manage", (NEW,), "creating"),
        Rule("manage_failed", ("creating",), "error_managing"),
        Rule("forgotten", (*_REST, "in-use", "reserved", "attaching", "detaching", "awaiting-transfer"), "deleted",
             "Cancel the work on it first."),
        Rule("unmanage", ("available", "error", "error_extending", "error_restoring"), "unmanaging", _FREE),
        Rule("unmanaged", ("unmanaging",), "deleted"),
        Rule("unmanage_failed", ("unmanaging",), "error"),
        Rule("revert", ("available",), "reverting", _FREE, alters=True),
        Rule("reverted", ("reverting",), "available"),
        Rule("revert_unclear", ("reverting",), "error"),
        Rule("upload", ("available",), "uploading", "A copy must be of one moment; detach it, or upload a clone.",
             remember=True),
        Rule("uploaded", ("uploading",), PREVIOUS),
        Rule("reimage", ("available", "error"), "downloading", _FREE, remember=True, alters=True),
        Rule("reimage_reserved", ("available", "error", "reserved"), "downloading", _FREE, remember=True, alters=True),
        Rule("reimage_ended", ("downloading",), PREVIOUS),
        Rule("repaired", ("error", "error_extending", "error_deleting", "error_managing", "error_restoring"),
             "available"),
        Rule("damaged", _REST, "error"),
    ),
)  # fmt: skip
