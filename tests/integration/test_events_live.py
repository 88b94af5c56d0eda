"""Events of a site of real processes: at the command line, and posted to a receiver."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.clients.livesite import BIN, live_site

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]


@contextmanager
def receiver() -> Iterator[tuple[str, queue.Queue[str]]]:
    got: queue.Queue[str] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.put(body["type"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def hears_ctrl_c() -> None:
    """A shell that runs tests in the background has them deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_events_reach_the_terminal_and_the_receiver() -> None:
    with receiver() as (url, got):
        hooks = f'notifications.webhooks=[{{ name = "one", url = "{url}", types = ["*_volume.*"] }}]'
        bus = ("notifications.messaging.transport_url=kombu+memory://", "notifications.messaging.capacity_s=1")
        with live_site(hooks, *bus, agents=1) as site:
            words = [BIN / "brickyard", "event", "list", "--watch", "-o", "ndjson"]
            watching = subprocess.Popen(
                words,
                env=site.env(),
                stdout=subprocess.PIPE,
                text=True,
                preexec_fn=hears_ctrl_c,  # noqa: PLW1509 - nothing but a system call
            )
            assert watching.stdout is not None
            volume = site.openstack("volume", "create", "--size", "1", "v")["id"]
            seen = [json.loads(watching.stdout.readline()) for _ in range(2)]
            watching.send_signal(signal.SIGINT)
            assert watching.wait(60) == 0
            assert [(one["type"], one["resource_id"]) for one in seen] == [
                ("create_volume.start", volume),
                ("create_volume.end", volume),
            ]
            assert [got.get(timeout=60) for _ in range(2)] == ["create_volume.start", "create_volume.end"]
            listed = json.loads(site.run("brickyard", "event", "list", "--type", "create_volume.end", "--json"))
            assert [one["payload"]["volume"]["status"] for one in listed] == ["available"]
            assert site.call("GET", "/brickyard/v1/issues")[1]["issues"] == []
            report = site.run("brickyard", "service", "report")
            assert "notifications/delivery.py" in report
            assert "server/capacity.py" in report
