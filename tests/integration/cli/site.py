"""A development site and what commands say of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Site:
    """A development site with one agent."""

    folder: Path
    environment: dict[str, str]

    def run(self, *arguments: str, stdin: str | None = None, **environment: str) -> Ran:
        done = subprocess.run(
            [BIN / "brickyard", *arguments], env={**self.environment, **environment}, input=stdin, text=True,
            capture_output=True, timeout=300, check=False, **({} if stdin is not None else {"stdin": None}),
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str, stdin: str | None = None) -> str:
        done = self.run(*arguments, stdin=stdin if stdin is not None else "")
        assert done.code == 0, done.err
        return done.out

    def agent(self, *arguments: str) -> Ran:
        command = [BIN / "brickyard-agent", *arguments, "--config", self.folder / "host-a.toml"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)
