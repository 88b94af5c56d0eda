"""What the agent's unit leaves of root is enough for its daemons, and no more than they use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.privsep import mapper
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


ENCRYPTED = """
import subprocess
path, ident = volume(32 << 20), str(uuid.uuid4())
fast = ["--pbkdf-force-iterations", "1000", "--pbkdf", "pbkdf2", "--batch-mode", "--key-file", "-"]
subprocess.run(["/usr/sbin/cryptsetup", "luksFormat", *fast, path], input=b"secret", check=True)
os.chown(path, 65534, 65534)
dropped()
from agent.connectors import local
async def main():
    device = await local.attach(path, ident, 32 << 20, encrypted=True, passphrase=b"secret")
    os.truncate(path, 64 << 20)
    grown = await local.resize(ident, 64 << 20, b"secret")
    return device.device.removesuffix(ident), grown.size > device.size, await local.detach(ident)
told(found=asyncio.run(main()))
"""


def capabilities() -> list[str]:
    unit = (ROOT / "systemd" / "brickyard-agent.service").read_text()
    (line,) = [line for line in unit.splitlines() if line.startswith("CapabilityBoundingSet=")]
    return [name.removeprefix("CAP_").lower() for name in line.partition("=")[2].split()]


def bounded(code: str, base: Path) -> dict[str, object]:
    """Run as the unit would: its bounding set, and no new privileges."""
    kept = ",".join(["-all", *(f"+{name}" for name in capabilities())])
    command = ["setpriv", f"--bounding-set={kept}", "--inh-caps=-all", "--no-new-privs", "--", sys.executable, "-B"]
    done = subprocess.run(
        [*command, "-c", PRELUDE + code, str(base)], capture_output=True, text=True, check=False, cwd="/",
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_attach_resize_and_detach_within_the_bounding_set() -> None:
    with traversable() as base:
        found = bounded(CODE, base)
        assert bound(base) == {}
    assert found == {"mode": "forked", "file": True, "size": 2 << 20, "detached": True, "owner": 65534}


@pytest.mark.skipif(not mapper.dm_crypt_available(), reason="this kernel has no dm-crypt")
def test_encrypted_is_opened_grown_and_closed_within_the_bounding_set() -> None:
    with traversable() as base:
        found = bounded(ENCRYPTED, base)
        assert bound(base) == {}
    assert found == {"found": ["/dev/mapper/brickyard-", True, True]}
