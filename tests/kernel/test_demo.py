"""`make demo` on a kernel with device-mapper: its volume is really decrypted by dm-crypt, and nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MACHINE = {"memory": 4096}
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(2500)
def test_the_demo_opens_its_volume_with_dm_crypt(capfd: pytest.CaptureFixture[str]) -> None:
    env = os.environ | {"BRICKYARD_REQUIRE": "loop", "PYTHONUNBUFFERED": "1"}
    out: list[str] = []
    command = [sys.executable, ROOT / "tests" / "demo" / "run.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            with capfd.disabled():
                print(line, end="", flush=True)
            out.append(line)
    said = "".join(out)
    assert demo.returncode == 0, said
    assert "no dm-crypt" not in said
    assert "SKIPPED" not in said
    assert "/dev/mapper/brickyard-" in said
    assert "Nothing is left" in said
