"""Both packages must come from the environment of the command that runs.

`agent` and `coordinator` are plain names: a folder of that name in the current directory or on PYTHONPATH could
take their place, as root. Every command calls `check()` before it imports anything else of ours.
"""

from __future__ import annotations

import json
import site
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent.base.errors import Permanent

PACKAGES = ("agent", "coordinator")


class ForeignPackage(Permanent):
    """A package of ours was found elsewhere than in this environment."""

    code = "environment.foreign-package"
    exit_code = 78
    sentence = "The package {package} would be loaded from {found}, which is not part of the environment {prefix}."
    hint = "Start the command from another directory, unset PYTHONPATH, or install brickyard anew into {prefix}."


def check() -> None:
    """Raise `ForeignPackage` unless both packages lie in this environment, or in the tree it is linked to."""
    installed = {Path(folder).resolve() for folder in site.getsitepackages([sys.prefix, sys.exec_prefix])}
    linked: set[Path] | None = None
    for package in PACKAGES:
        found = _folder(package)
        if found in installed:
            continue
        if linked is None:
            linked = {tree for tree in map(_linked_tree, installed) if tree}
        if found is None or found not in linked:
            where = found if found else "nowhere"
            raise ForeignPackage(package=package, found=str(where), prefix=sys.prefix)


def _folder(package: str) -> Path | None:
    """The folder that holds the package, without importing it."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).resolve().parent.parent


def _linked_tree(site: Path) -> Path | None:
    """The source tree of an editable installation, as pip noted it."""
    for note in site.glob("brickyard-*.dist-info/direct_url.json"):
        content = json.loads(note.read_text())
        if content.get("dir_info", {}).get("editable"):
            return Path(unquote(urlsplit(content["url"]).path)).resolve()
    return None
