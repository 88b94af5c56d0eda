"""Are the programs there that the agent calls?"""

from __future__ import annotations

from collections.abc import Iterator

from agent.diagnostics.finding import Finding, bad, ok
from agent.diagnostics.place import Place
from agent.host import tools


def check(place: Place) -> Iterator[Finding]:
    gone = tools.missing()
    for tool in gone:
        remedy = f"Install it: apt-get install {tool.package}"
        yield bad("tools", f"{tool.name} is not installed; it {tool.purpose}.", remedy)
    if not gone:
        yield ok("tools", f"All {len(tools.known())} programs are installed.")
