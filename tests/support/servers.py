"""Servers of others beside a site: each its package in an environment of its own; started, asked, stopped."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_ROOT = Path(__file__).parents[2]
_PATIENCE_S = 600.0
_QUIET = {"PYTHONWARNINGS": "ignore"}
BY_KEYSTONE = """
[oslo_policy]
enforce_new_defaults = true
[keystone_authtoken]
www_authenticate_uri = {keystone}
auth_url = {keystone}
interface = public
auth_type = password
username = brickyard
password = {password}
project_name = service
user_domain_id = default
project_domain_id = default
"""
"""The part of a configuration that has callers proven by a Keystone, asked as its user `brickyard`."""


@dataclass
class Answer:
    """JSON where it is some, else the bytes."""

    status: int
    headers: Mapping[str, str]
    body: Any


def asked(method: str, url: str, body: Any = None, timeout: float = 300, **headers: str) -> Answer:
    """JSON goes in and comes out; bytes are sent as they are. Raises HTTPError."""
    kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    sent = {"Content-Type": kind, **headers}
    request = urllib.request.Request(url, data, sent, method=method)
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        text = answer.read()
        is_json = answer.headers.get_content_type() == "application/json" and text
        return Answer(answer.status, answer.headers, json.loads(text) if is_json else text)


@dataclass(frozen=True)
class Package:
    """An environment `.venv-NAME` with some packages of `pip`; `folder` holds what the server writes."""

    name: str
    wanted: tuple[str, ...]

    @property
    def home(self) -> Path:
        return _ROOT / f".venv-{self.name}"

    def install(self) -> None:
        """Made once, and again when other packages are wanted; skips where they can not be had."""
        self.home.mkdir(exist_ok=True)
        made = self.home / "made"
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if made.exists() and made.read_text() == " ".join(self.wanted):
                return
            for old in self.home.glob("*.db"):
                old.unlink()
            subprocess.run([sys.executable, "-m", "venv", str(self.home)], check=True, timeout=900)
            done = subprocess.run(
                [self._path("pip"), "install", "-q", "--no-input", "--disable-pip-version-check", *self.wanted],
                capture_output=True, text=True, check=False, timeout=1800,
            )  # fmt: skip
            if done.returncode:
                pytest.skip(f"the package {self.name} can not be installed: {done.stderr.strip().splitlines()[-1:]}")
            made.write_text(" ".join(self.wanted))

    def run(self, folder: Path, command: str, *arguments: str) -> None:
        """One of its commands, to its end."""
        subprocess.run(
            [self._path(command), *arguments], check=True, capture_output=True, timeout=900, cwd=folder,
            env=self._environment(folder, {}),
        )  # fmt: skip

    def migrate(self, folder: Path, database: str, command: str, *arguments: str) -> None:
        """Run the command that makes `database` in the folder; a copy of what it made serves all later folders."""
        kept = self.home / database
        with (self.home / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                self.run(folder, command, *arguments)
                half = kept.with_suffix(".half")
                shutil.copy(folder / database, half)
                half.rename(kept)
        shutil.copy(kept, folder / database)

    @contextmanager
    def serving(self, folder: Path, url: str, command: str, *arguments: str, **more: str) -> Iterator[None]:
        """The command runs and answers at the address, with whatever status; stopped, and its folder removed."""
        log = folder / "serve.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [self._path(command), *arguments], stdout=out, stderr=out, cwd=folder,
                env=self._environment(folder, more),
            )  # fmt: skip
        try:
            _answers(url, process, log)
            yield
        finally:
            process.terminate()
            process.wait(30)
            shutil.rmtree(folder, ignore_errors=True)

    def _path(self, command: str) -> str:
        return str(self.home / "bin" / command)

    def _environment(self, folder: Path, more: Mapping[str, str]) -> dict[str, str]:
        # Some look for a configuration by themselves, in the home directory.
        return {**os.environ, **_QUIET, "HOME": str(folder), **more}


def _answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=10).close()
        except urllib.error.HTTPError:
            return  # some list their versions with status 300
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text()[-3000:] or f"nobody answers at {url}")
