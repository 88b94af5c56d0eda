"""The commands that people type, `openstack` and `brickyard`, as their own programs run them.

They are forked from one small process that has imported them, which spares two seconds each.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.integration.agent.zygote import Zygote

_IMPORTS = """
import openstackclient.shell, openstackclient.image.v2.image, openstackclient.volume.v3.volume
import openstackclient.volume.v3.volume_type, keystoneauth1.identity.v3, openstack.connection
import coordinator.cli.main, coordinator.cli.nouns.volume, coordinator.cli.nouns.key
from tests.support.shell import run_command
"""


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out or "null")


@cache
def _zygote() -> Zygote:
    return Zygote(_IMPORTS, "    return run_command(request)")


def run(folder: Path, environment: Mapping[str, str], *words: str, seconds: float = 600) -> Done:
    """Run it to its end; its files are kept in `folder` for as long. One at a time."""
    out, err = folder / "command.out", folder / "command.err"
    err.write_bytes(b"")
    request: dict[str, object] = {"words": words, "environment": dict(environment), "out": str(out)}
    process, pipe = _zygote().fork(request, err)
    try:
        code = process.wait(seconds)
    finally:
        os.close(pipe)
    return Done(code, out.read_text(), err.read_text())


def run_command(request: Mapping[str, Any]) -> int:
    """What the fork does: never returns to its caller's world."""
    os.environ.clear()
    os.environ.update(request["environment"])
    out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(out, 1)
    name, *words = request["words"]
    sys.argv = [name, *words]
    try:
        if name == "openstack":
            from openstackclient.shell import main as openstack

            return int(openstack(words) or 0)
        from coordinator.cli.main import main as brickyard

        brickyard()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
