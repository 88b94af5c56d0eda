"""What the agent's unit leaves of root is enough for its daemons, and no more than they use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.agent.privsep_child import PRELUDE, ROOT, bound, traversable

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="bounding capabilities needs root"),
    pytest.mark.skipif(not Path("/dev/loop-control").exists(), reason="no loop devices here"),
]

CODE = """
import ctypes
ctypes.CDLL(None).prctl(65, *map(ctypes.c_ulong, (1, 0, 0, 0)))  # as MemoryDenyWriteExecute=, where the kernel has it
from agent.server.prepare import make_folders
from agent.server.settings import AgentSettings
state = base / "state"
state.mkdir()
make_folders(AgentSettings(agent={"state_dir": state}), account.choose("nobody"))
given = dropped()
from agent.connectors import local
async def main():
    path, attachment = volume(data=b"hello"), str(uuid.uuid4())
    device = await local.attach(path, attachment, 1 << 20)
    os.truncate(path, 2 << 20)
    grown = await local.resize(attachment, 2 << 20)
    return device.backing_file == str(path), grown.size, await local.detach(attachment)
file, size, detached = asyncio.run(main())
told(mode=given.mode, file=file, size=size, detached=detached, owner=state.stat().st_uid)
"""


def capabilities() -> list[str]:
    unit = (ROOT / "systemd" / "brickyard-agent.service").read_text()
    (line,) = [line for line in unit.splitlines() if line.startswith("CapabilityBoundingSet=")]
    return [name.removeprefix("CAP_").lower() for name in line.partition("=")[2].split()]


def test_attach_resize_and_detach_within_the_bounding_set() -> None:
    kept = ",".join(["-all", *(f"+{name}" for name in capabilities())])
    with traversable() as base:
        command = ["setpriv", f"--bounding-set={kept}", "--inh-caps=-all", "--no-new-privs", "--", sys.executable, "-B"]
        done = subprocess.run(
            [*command, "-c", PRELUDE + CODE, str(base)], capture_output=True, text=True, check=False, cwd="/",
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
        assert bound(base) == {}
    assert found == {"mode": "forked", "file": True, "size": 2 << 20, "detached": True, "owner": 65534}
