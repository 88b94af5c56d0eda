"""Is the journal whole?"""

from __future__ import annotations

from collections.abc import Iterator

from agent.diagnostics import journal
from agent.diagnostics.finding import Finding, bad, ok, warning
from agent.diagnostics.place import Place


def check(place: Place) -> Iterator[Finding]:
    if not place.journal_file.exists():
        yield warning("journal", f"There is no journal {place.journal_file} yet.", "The agent makes it at its start.")
        return
    found = journal.whole(place.journal_file)
    if found:
        remedy = "Stop the agent, keep a copy of the file, and move it away: the coordinator posts its work again."
        yield bad("journal", f"The journal is damaged: {'; '.join(found)}.", remedy)
    else:
        yield ok("journal", "The journal is whole.")
