"""Reports of running processes: at SIGUSR2, while the loop is stuck, without secrets, and the process goes on."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agent.base import state_report

PROCESS = """
import asyncio, sys, threading, time
from pathlib import Path
from pydantic import BaseModel, SecretStr
from agent.base import state_report
class Part(BaseModel):
    password: SecretStr = SecretStr("hush-hush")
    plain_password: str = "not-so-hush"
    url: str = "rabbit://user:hush-hush@host/"
    size: int = 7
class Settings(BaseModel):
    part: Part = Part()
folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
state_report.on_signal(Settings(), folder)
async def waits_for_ever(): await asyncio.Event().wait()
async def main():
    task = asyncio.create_task(waits_for_ever(), name="waiter")
    await asyncio.sleep(0)
    print("ready", flush=True)
    sys.stdin.readline()  # the loop is stuck here
    print("goes on", flush=True)
threading.Thread(target=threading.Event().wait, name="idler", daemon=True).start()
asyncio.run(main())
"""


def reported(folder: str | None = None) -> tuple[str, str]:
    """Signal a process once; what it wrote on standard error, and the rest of its output."""
    words = [sys.executable, "-c", PROCESS, *([folder] if folder is not None else [])]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR2)
    out, err = process.communicate("\n", timeout=60)
    assert process.returncode == 0
    return err, out


def test_a_report_while_the_loop_is_stuck() -> None:
    err, out = reported()
    assert out == "goes on\n"
    for section in ("Package", "Threads", "Tasks", "Processes", "Configuration"):
        assert f"==== {section} ====" in err
    assert "idler" in err
    assert "task waiter" in err
    assert "waits_for_ever" in err
    assert "part.size = 7" in err
    assert "hush" not in err


def test_a_report_in_a_folder(tmp_path: Path) -> None:
    err, _ = reported(str(tmp_path))
    assert err == ""
    (file,) = tmp_path.iterdir()
    assert "==== Threads ====" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    err, out = reported(str(tmp_path / "missing"))
    assert "==== Threads ====" in err
    assert out == "goes on\n"


async def test_a_report_on_call(monkeypatch: pytest.MonkeyPatch) -> None:
    text = state_report.made()
    assert "test_a_report_on_call" in text
    assert "child" not in text or "pid" in text
