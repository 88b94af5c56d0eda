"""aiohttp, loaded without what it loads for uses that are not ours. Called by `lean.prepare`; works without it, too."""

from __future__ import annotations

import importlib
import mimetypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from agent.base.put_off import called_later

# Of these aiohttp takes functions that we never call: proxies of the environment, a command line of its own.
_CALLED_SELDOM = ("argparse", "urllib.request")
# asyncio takes that much for each connection by TLS, for good, and for each call of recv(), where more than malloc's
# limit (`lean`) is mapped and unmapped each time. Of its own 256 KiB a message of ours fills a few.
_BUFFER = 64 * 1024


def load() -> None:
    """Load aiohttp, client and server, unless it is loaded."""
    if "aiohttp" in sys.modules:
        return
    # It would read the types of all files that this host has programs for; it serves none.
    mimetypes.knownfiles = []
    _html_without_entities()
    # It would read all certificates twice (70 ms, 2 MiB); each client of ours brings its own context, and one that
    # brought none would trust nobody.
    with _environment(SSL_CERT_FILE=os.devnull, SSL_CERT_DIR=os.devnull), called_later(*_CALLED_SELDOM):
        importlib.import_module("aiohttp.web")
    from asyncio import selector_events, sslproto

    sslproto.SSLProtocol.max_size = _BUFFER
    selector_events._SelectorTransport.max_size = _BUFFER  # type: ignore[attr-defined]


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """With these variables of the environment, and as it was before afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _html_without_entities() -> None:
    """To escape, aiohttp needs five names; all 2,231 (half a MiB) come when something is unescaped."""
    if "html" in sys.modules:
        return
    stand_in: Any = ModuleType("html.entities")
    stand_in.html5 = {}
    sys.modules["html.entities"] = stand_in
    import html

    del sys.modules["html.entities"]

    def unescape(s: str) -> str:
        importlib.reload(html)
        return html.unescape(s)

    html.unescape = unescape
