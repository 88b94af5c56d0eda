"""A release before this one in an environment of its own, whose processes are started as those of this one are.

`tests/corpus/releases/RELEASE.tar.xz` is what its wheel installs, without compiled code, and as `released_parts.py`
what a test site forks its processes with (its `tests/support/parts.py`). The libraries are those of the environment
that runs the tests. A released archive is never changed.
"""

from __future__ import annotations

import atexit
import shutil
import sys
import sysconfig
import tarfile
import tempfile
import venv
from functools import cache
from pathlib import Path

from tests.integration.agent.zygote import Zygote

ARCHIVES = Path(__file__).parents[1] / "corpus" / "releases"


def releases() -> list[str]:
    return sorted(path.name.removesuffix(".tar.xz") for path in ARCHIVES.glob("*.tar.xz"))


@cache
def zygote(release: str) -> Zygote:
    """What forks the coordinators and agents of that release."""
    folder = Path(tempfile.mkdtemp(prefix=f"brickyard-{release}-", dir="/var/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    python = _installed(release, folder / "venv")
    return Zygote("from released_parts import run_part", "    return run_part(request, ready)", python, folder)


def _installed(release: str, place: Path) -> Path:
    """Its interpreter, which finds that release's packages before all others."""
    venv.create(place, symlinks=True)
    site = place / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    with tarfile.open(ARCHIVES / f"{release}.tar.xz") as packed:
        packed.extractall(site)
    # A path that a .pth file adds is not looked through for more of them: no link to this tree is followed.
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return place / "bin" / "python"
