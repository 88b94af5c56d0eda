"""Does an agent run here?"""

from __future__ import annotations

from collections.abc import Iterator

from agent.diagnostics.finding import Finding, bad, ok, warning
from agent.diagnostics.place import Place


def check(place: Place) -> Iterator[Finding]:
    if not place.state_dir.is_dir():
        remedy = "Enrol this host: brickyard-agent join TOKEN; or name its configuration with --config."
        yield bad("agent", f"There is no state directory {place.state_dir}.", remedy)
        return
    running = place.running()
    if running is None:
        yield warning("agent", "No agent runs on this state directory.", "Start it: systemctl start brickyard-agent")
    else:
        yield ok("agent", f"The agent runs{f' as process {running}' if running else ''}.")
