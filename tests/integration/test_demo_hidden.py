"""The demo from a clone below a folder that root alone may enter, as one in /root is: the services give up root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# In a mount namespace of its own the clone is moved below a folder of mode 0700, at the same path.
HIDDEN = """
set -e
mkdir "$1/kept"
mount --bind "$2" "$1/kept"
mount -t tmpfs -o mode=0700 hidden "/$(echo "$2" | cut -d/ -f2)"
mkdir -p "$2"
mount --bind "$1/kept" "$2"
cd "$2"
exec "$3" tests/demo/run.py
"""
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a mount namespace of its own"),
    pytest.mark.skipif(not shutil.which("qemu-img"), reason="needs qemu-img"),
    pytest.mark.skipif(ROOT.parts[1] in {"var", "usr", "tmp"}, reason="the clone lies where the demo works"),
    pytest.mark.timeout(400),
]


def test_a_clone_that_only_root_can_read_works(tmp_path: Path) -> None:
    python = f"{sys.prefix}/bin/python"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", HIDDEN, "sh", str(tmp_path), str(ROOT), python],
        capture_output=True, text=True, check=False, timeout=380,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "Nothing is left" in done.stdout
