"""Secrets that are marked, and where they are looked for: processes all the time, files in the end."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.site import Site


def marks(secret: bytes) -> list[bytes]:
    """A secret in each form in which it could be found; base64 at each of the three alignments."""
    found = [secret, secret.hex().encode(), secret.hex().upper().encode(), repr(secret)[2:-1].encode()]
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + secret).decode().rstrip("=")
        middle = text[4 if shift else 0 : len(text) - 4]
        found += [middle.encode(), middle.replace("+", "-").replace("/", "_").encode()]
    return found


class Watcher:
    """Reads arguments and environment of all processes over and over in a thread of its own, `pause_s` between."""

    def __init__(self, wanted: list[bytes], pause_s: float = 0) -> None:
        self._wanted, self._stop, self._pause_s = wanted, threading.Event(), pause_s
        self.found: set[str] = set()
        self.tools: set[str] = set()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(self._pause_s):
            for process in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    with suppress(OSError):
                        data = (process / name).read_bytes()
                        if name == "cmdline":
                            self.tools.add(Path(data.split(b"\0")[0].decode(errors="replace")).name)
                        self.found |= {f"{name} of {data[:200]!r}" for mark in self._wanted if mark in data}

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()


def everything(site: Site) -> dict[str, bytes]:
    """All files of the site but the volumes, which are encrypted and large."""
    found = {}
    for path in site.folder.rglob("*"):
        if path.is_file() and "volumes" not in path.parts:
            found[str(path.relative_to(site.folder))] = path.read_bytes()
    return found
