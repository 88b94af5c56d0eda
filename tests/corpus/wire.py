"""What the models of the wire look like, for `wire/RELEASE.json`: run by hand when a release is made.

.venv/bin/python -m tests.corpus.wire > tests/corpus/wire/0.2.json
"""

from __future__ import annotations

import json
import sys
from typing import Any

from agent.wire import jobs, joining, results
from agent.wire.basis import Wire


def models() -> dict[str, type[Wire]]:
    """All models that travel, by name."""
    assert all((jobs, joining, results))
    found: dict[str, type[Wire]] = {}
    waiting = [Wire]
    while waiting:
        for model in waiting.pop().__subclasses__():
            if model.__module__.startswith("agent.wire."):
                found[model.__name__] = model
            waiting.append(model)
    return found


def shape(model: type[Wire]) -> dict[str, Any]:
    """Which fields there are, and which of them must be given."""
    return {
        "fields": sorted(model.model_fields),
        "required": sorted(n for n, f in model.model_fields.items() if f.is_required()),
    }


def shapes() -> dict[str, dict[str, Any]]:
    return {name: shape(model) for name, model in sorted(models().items())}


if __name__ == "__main__":
    json.dump(shapes(), sys.stdout, indent=1)
    sys.stdout.write("\n")
