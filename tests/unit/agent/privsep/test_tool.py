"""Programs that root starts: what they say comes back, and one that hangs is ended without hanging the daemon."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from agent.privsep import tool
from agent.privsep.errors import PrivilegeTimeout, ProgramMissing


def test_what_it_said_and_how_it_ended() -> None:
    ended = tool.run("sh", ["-c", "cat; echo no >&2; exit 3"], b"secret")
    assert (ended.code, ended.stdout, ended.stderr) == (3, "secret", "no")


def test_nothing_of_our_environment_goes_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LVM_SYSTEM_DIR", "/tmp/evil")
    assert "evil" not in tool.run("env", []).stdout


@pytest.mark.parametrize("leashed", [True, False])
def test_one_that_hangs_is_ended(leashed: bool, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(PrivilegeTimeout):
        tool.run("sh", ["-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"], timeout=3.0, leashed=leashed)
    assert time.monotonic() - began < 30
    pid = (tmp_path / "pid").read_text().strip()
    assert not Path(f"/proc/{pid}").exists()


def test_one_that_is_not_leashed_is_asked_first(tmp_path: Path) -> None:
    script = f"trap 'echo bye > {tmp_path}/bye; exit 0' TERM; echo x > {tmp_path}/ready; while :; do sleep 0.1; done"
    with pytest.raises(PrivilegeTimeout):
        tool.run("sh", ["-c", script], timeout=4.0, leashed=False)
    assert (tmp_path / "bye").read_text() == "bye\n"


def test_one_that_takes_long_hears_that_it_is_to_end() -> None:
    """The daemons that start it have those signals blocked, which a program would inherit."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    try:
        started = tool.start("sh", ["-c", "echo ready; exec sleep 60"])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with started:
        assert started.stdout is not None
        assert started.stdout.readline() == b"ready\n"
        started.terminate()
        try:
            assert started.wait(20) == -signal.SIGTERM
        finally:
            started.kill()


def test_a_program_of_nowhere() -> None:
    with pytest.raises(ProgramMissing):
        tool.run("brickyard-no-such-program", [])
