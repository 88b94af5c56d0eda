"""The tutorial does what it says: its commands are run as they stand, in a machine of their own as far as it shows."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial" / "first-volume.md"
# Ports, /tmp and processes of their own; who ends this ends them all.
APART = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
FIRST = """
set -eu
ip link set lo up
mount -t tmpfs tmpfs /tmp
mkfifo /tmp/.first
exec 3<>/tmp/.first
(
{first}
) >&3 2>/tmp/.log &
site=$!
while read -r -t 60 line <&3 && [ "$line" != ready ]; do :; done
[ "$line" = ready ] || {{ cat /tmp/.log >&2; exit 1; }}
"""
SECOND = """
kill -INT "$site"
wait "$site"
"""

pytestmark = [
    pytest.mark.root,
    pytest.mark.clients,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: name spaces, and attaching to this host"),
    pytest.mark.skipif(not shutil.which("cryptsetup"), reason="needs cryptsetup"),
    pytest.mark.skipif(not shutil.which("ip"), reason="needs ip (iproute2)"),
]


def test_every_command_works() -> None:
    first, *others = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert first.splitlines()[-1].startswith("brickyard dev")
    lines = "".join(others).splitlines()
    second = "".join(f"echo {shlex.quote('$ ' + line)}\n{line}\n" for line in lines)
    script = FIRST.format(first=first.replace("brickyard dev", "exec brickyard dev")) + second + SECOND
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "MAKE", "MFLAGS"))}
    done = subprocess.run(
        [*APART, "bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stdout.count("available") >= 4
    assert "/dev/loop" in done.stdout
    assert "no encryption" in done.stderr
    assert not [
        path for path in Path("/sys/block").glob("loop*/loop/backing_file") if "brickyard/host-a" in path.read_text()
    ]
