"""Is what should be attached there?"""

from __future__ import annotations

from collections.abc import Iterator

from agent.diagnostics import live
from agent.diagnostics.finding import Finding, ok, skipped, warning
from agent.diagnostics.place import Place

_REMEDIES = {
    "missing": "Attach it again, or delete the attachment: brickyard attachment delete",
    "stale": "Detach it again; it goes on where it stopped.",
}


def check(place: Place) -> Iterator[Finding]:
    if not place.journal_file.exists():
        yield skipped("attachments", "There is no journal.")
        return
    rows = live.attachments(place)
    wrong = [row for row in rows if row["state"] in _REMEDIES]
    for row in wrong:
        message = f"Attachment {row['attachment_id']} of volume {row['volume_id']} is {row['state']}."
        yield warning("attachments", message, _REMEDIES[row["state"]])
    if not wrong:
        yield ok("attachments", f"All {len(rows)} attachments are as they should be.")
