"""Commands of the build: their output is shown only when they fail."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.bench.place import BuildFailed

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def has(tool: str) -> bool:
    return shutil.which(tool, path=PATH) is not None


def where(tool: str) -> Path:
    found = shutil.which(tool, path=PATH)
    assert found is not None, f"{tool} was looked for before"
    return Path(found)


def run(*command: str | Path, cwd: Path | None = None, stdin: bytes = b"") -> bytes:
    """The output of a command. BuildFailed with what it said."""
    argv = [str(word) for word in command]
    env = {"PATH": PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}
    done = subprocess.run(argv, cwd=cwd, input=stdin, capture_output=True, check=False, env=env)
    if done.returncode:
        said = (done.stderr + done.stdout).decode(errors="replace")[-4000:]
        raise BuildFailed(f"{' '.join(argv)[:300]} ended with {done.returncode}:\n{said}")
    return done.stdout


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what goes on now and how long it took."""
    print(f"bench: {what} ...", flush=True)
    start = time.monotonic()
    yield
    print(f"bench: {what}: {time.monotonic() - start:.0f} s", flush=True)


def words(listed: Sequence[str]) -> list[str]:
    """The lines of a list without comments and empty ones."""
    stripped = (line.partition("#")[0].strip() for line in listed)
    return [line for line in stripped if line]
