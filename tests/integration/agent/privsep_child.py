"""Programs that start as root (or not), fork daemons, drop, and do something: each in a process of its own.

Forking daemons must happen before the first thread, which a test runner can not promise.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]

PRELUDE = """
import asyncio, contextlib, json, os, sys, uuid
from pathlib import Path
from agent.privsep import account, start
from agent.privsep.errors import *
base = Path(sys.argv[1])

def dropped(**options):
    nobody = account.choose("nobody")
    account.check(nobody, base)
    given = start.start(["block", "crypt", "net"], roots=[base / "root"], **options)
    account.drop(nobody, base)
    return given

def volume(size=1 << 20, data=b""):
    path = base / "root" / "volumes" / str(uuid.uuid4())
    path.write_bytes(data)
    os.truncate(path, size)
    return path

def channel(name):
    from agent.privsep import client, contexts
    client.awake(contexts.BY_NAME[name])
    return contexts.BY_NAME[name].channel

def told(**values):
    print(json.dumps(values))
"""


@contextmanager
def traversable() -> Iterator[Path]:
    """A folder that `nobody` owns and reaches (pytest's own lies beneath a private one)."""
    folder = Path(tempfile.mkdtemp(prefix="brickyard-test-", dir="/var/tmp"))
    try:
        (folder / "root" / "volumes").mkdir(parents=True)
        for path in (folder, folder / "root", folder / "root" / "volumes"):
            path.chmod(0o711)
            if os.geteuid() == 0:
                os.chown(path, 65534, 65534)
        yield folder
    finally:
        shutil.rmtree(folder)


def run(code: str, base: Path, *, user: str | None = None) -> dict[str, Any]:
    """Run the code after the prelude; its last line of output is JSON. `user`: start as that user, not as root."""
    command = [sys.executable, "-B", "-c", PRELUDE + code, str(base)]
    if user is not None:
        command = ["setpriv", "--reuid", user, "--regid", "nogroup", "--clear-groups", "--", *command]
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", env=env, timeout=300)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def bound(below: Path) -> dict[str, str]:
    """What losetup would list of files below a folder; other tests have devices of their own meanwhile."""
    found = {}
    for path in sorted(Path("/sys/block").glob("loop*/loop/backing_file")):
        try:
            file = path.read_text().strip()
        except OSError:
            continue
        if file.startswith(str(below)):
            found[path.parts[3]] = file
    return found
