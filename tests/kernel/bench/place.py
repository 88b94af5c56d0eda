"""Where built images lie: by the hash of what they were made from, made once, renamed into place, old ones removed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[3]
_KEPT = {"root": 2, "python": 6, "s390x": 2, "python390": 3, "dasd": 2, "um": 2}  # of each kind, the ones used last
_KEPT_S = 2 * 86400  # one used since then is never removed


class Unavailable(Exception):
    """The bench can not be had on this machine; the text says why and what would help."""


class BuildFailed(Exception):
    """A step of the build failed; the text names it."""


def cache() -> Path:
    """The folder of all images: $BRICKYARD_CACHE, or one of this user outside of the clone."""
    named = os.environ.get("BRICKYARD_CACHE")
    folder = Path(named) if named else Path.home() / ".cache" / "brickyard"
    folder = folder / "bench"
    folder.mkdir(parents=True, exist_ok=True, mode=0o755)
    return folder


def key_of(*parts: str | bytes | Path) -> str:
    """A short hash of texts and of files' contents."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part if isinstance(part, bytes) else part.encode()
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]


def made(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder `kind-key`, made by `make(new folder)` where it is not there. Safe with any number of callers."""
    folder = cache() / f"{kind}-{key}"
    with _locked(cache() / f"{kind}.lock"):
        if not folder.exists():
            for rest in cache().glob(f"{kind}-*.new"):
                shutil.rmtree(rest)
            new = folder.with_name(f"{folder.name}.new")
            new.mkdir()
            make(new)
            new.rename(folder)
        os.utime(folder)
        _prune(kind, folder)
    return folder


def _prune(kind: str, current: Path) -> None:
    found = [path for path in cache().glob(f"{kind}-*") if path.is_dir() and path != current]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[_KEPT[kind] - 1 :]:
        if time.time() - path.stat().st_mtime > _KEPT_S:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("bench: another run is building the image; waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
