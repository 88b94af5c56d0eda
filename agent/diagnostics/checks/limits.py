"""May the privileged side do what the back ends need?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePath

from agent.diagnostics.finding import Finding, bad, ok, warning
from agent.diagnostics.place import Place
from agent.privsep import limits


def check(place: Place) -> Iterator[Finding]:
    file = place.limits_file
    remedy = f"As root, list their folders in {file}: [block] roots = [...]; the sample lies beside the units."
    try:
        roots = [PurePath(root) for root in limits.read(file).roots]
    except FileNotFoundError:
        yield warning("limits", f"There is no {file}: nothing can be attached by an installed agent.", remedy)
        return
    outside = [
        name
        for name, folder in place.backends.items()
        if not any(PurePath(os.path.realpath(folder)).is_relative_to(root) for root in roots)
    ]
    for name in outside:
        yield bad("limits", f"Volumes of the back end {name} ({place.backends[name]}) can not be attached.", remedy)
    if not place.backends:
        yield ok("limits", f"{file} can be read; no back end of this host is a folder.")
    elif not outside:
        yield ok("limits", f"{file} allows all back ends.")
