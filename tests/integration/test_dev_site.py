"""`brickyard dev` as a whole: it starts again what dies, leaves nothing when it dies itself, and stops cleanly."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

BRICKYARD = Path(sys.executable).with_name("brickyard")


class Dev:
    def __init__(self, folder: Path, *command: Path | str) -> None:
        self.log = (folder / "log").open("ab")
        self.process = subprocess.Popen(
            [*(command or (BRICKYARD,)), "dev", "--state-dir", str(folder / "site"), "--port", "0"],
            stdout=subprocess.PIPE, stderr=self.log, env={**os.environ, "PYTHONUNBUFFERED": ""},
        )  # fmt: skip
        self.openrc = folder / "site" / "openrc"

    def line(self, wanted: str, seconds: float = 20) -> str:
        assert self.process.stdout is not None
        fd, text, deadline = self.process.stdout.fileno(), b"", time.monotonic() + seconds
        while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            byte = os.read(fd, 1)
            assert byte, "it ended"
            text = b"" if text.endswith(b"\n") else text
            text += byte
            if byte == b"\n" and wanted.encode() in text:
                return text.decode().strip()
        raise AssertionError(f"{wanted!r} did not come")

    def tree(self) -> list[int]:
        """All of it but what works aside, which comes and goes."""
        found = [self.process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split() if not _aside(child)]
        return found

    def children(self) -> list[int]:
        """In the order of their start."""
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def pools(self) -> list[object]:
        exports = dict(
            line.removeprefix("export ").replace("'", "").split("=", 1)
            for line in self.openrc.read_text().split("\n")[:-1]
        )
        user = {"name": "admin", "domain": {"name": "Default"}, "password": exports["OS_PASSWORD"]}
        scope = {"project": {"name": "admin", "domain": {"name": "Default"}}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        url = exports["OS_AUTH_URL"]
        asked = urllib.request.Request(
            url + "/auth/tokens", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked) as answer:
            token = answer.headers["X-Subject-Token"]
        url = url.replace("/identity/v3", "/v3/scheduler-stats/get_pools")
        with urllib.request.urlopen(urllib.request.Request(url, headers={"X-Auth-Token": token})) as answer:
            return list(json.load(answer)["pools"])


@pytest.fixture
def dev() -> Iterator[Dev]:
    with tempfile.TemporaryDirectory(prefix="brickyard-dev-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        site = Dev(folder)
        try:
            yield site
        finally:
            if site.process.poll() is None:
                site.process.terminate()
                site.process.wait(60)
            site.log.close()


def _aside(pid: str) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True
    return b"agent.base.aside" in command or not command


def _gone(pids: list[int], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    for pid in pids:
        while (
            Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        ):
            assert time.monotonic() < deadline, f"process {pid} is still there"
            time.sleep(0.02)


def test_what_dies_is_started_again_and_a_stop_leaves_nothing(dev: Dev) -> None:
    dev.line("Block Storage API")
    dev.line("ready")
    assert dev.pools()
    before = dev.tree()
    coordinator, agent = dev.children()

    os.kill(coordinator, signal.SIGKILL)
    dev.line("ready")
    assert dev.pools()
    assert dev.children()[0] == agent

    os.kill(agent, signal.SIGKILL)
    _gone([agent])
    deadline = time.monotonic() + 60
    while len(left := dev.tree()) != len(before):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert dev.pools()

    dev.process.terminate()
    assert dev.process.wait(60) == 0, Path(dev.log.name).read_text()
    _gone(left)


def test_children_end_with_a_parent_that_was_killed(dev: Dev) -> None:
    dev.line("ready")
    everything = dev.tree()
    dev.process.kill()
    dev.process.wait(60)
    _gone(everything)


def test_a_wrong_key_is_told_before_anything_is_started(tmp_path: Path) -> None:
    done = subprocess.run(
        [BRICKYARD, "dev", "--state-dir", str(tmp_path / "site"), "--set", "jobs.quick=0"],
        check=False, capture_output=True, text=True, timeout=20,
    )  # fmt: skip
    assert done.returncode != 0
    assert "jobs.quick" in done.stderr
    assert not (tmp_path / "site" / "coordinator").exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can use what only root can reach")
def test_a_site_of_an_environment_that_only_root_can_reach() -> None:
    with tempfile.TemporaryDirectory(prefix="brickyard-hidden-") as hidden, tempfile.TemporaryDirectory() as name:
        Path(hidden, "environment").symlink_to(sys.prefix)
        folder = Path(name)
        folder.chmod(0o711)
        python = Path(hidden, "environment", "bin", "python3")
        main = "from coordinator.cli.main import main; main()"
        site = Dev(folder, python, "-I", "-c", main)
        try:
            site.line("ready", 60)
            assert site.pools()
        finally:
            site.process.terminate()
            assert site.process.wait(60) == 0, Path(site.log.name).read_text()
            site.log.close()
