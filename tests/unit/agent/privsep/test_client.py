"""Verbs without privileges: a clear error instead of a try at sudo; and no eventlet in any case."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from agent.privsep import block, client, contexts
from agent.privsep.errors import DaemonLost, PrivilegeUnavailable

ROOT = Path(__file__).parents[4]


async def test_a_verb_without_privileges_says_so() -> None:
    client.set_mode("none", "it is an ordinary user")
    with pytest.raises(PrivilegeUnavailable, match=r"loop_list needs privileges .*ordinary user") as caught:
        await client.call(block.loop_list)
    assert caught.value.code == "privilege.unavailable"
    assert "rootwrap" in caught.value.remedy


async def test_a_daemon_that_was_not_started_is_not_asked_of_sudo() -> None:
    client.set_mode("forked")
    with pytest.raises(PrivilegeUnavailable, match="no daemon"):
        await client.call(block.loop_list)
    client.set_mode("none")


def test_who_finds_the_line_to_a_daemon_broken_is_told_so_before_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    from oslo_privsep.daemon import _ClientChannel  # only after our own modules have kept eventlet out

    class LateReader(_ClientChannel):
        """Hears of the end of the line later than whoever writes to it."""

        hears = threading.Event()

        def exchange_ping(self) -> None:
            """Nobody answers."""

        def _reader_main(self, reader: Any) -> None:
            self.running = True
            self.hears.wait(60)
            self.running = False

    ours, theirs = socket.socketpair()
    theirs.close()
    channel = LateReader(ours, contexts.block)
    monkeypatch.setattr(contexts.block, "channel", channel)
    client.set_mode("forked")
    later = threading.Timer(0.2, channel.hears.set)
    later.start()
    try:
        with pytest.raises(DaemonLost):
            client.invoke(block.loop_list)
    finally:
        client.set_mode("none")
        later.join()
        ours.close()


async def test_only_verbs_are_called() -> None:
    with pytest.raises(TypeError, match="no privileged verb"):
        await client.call(len, [])


@pytest.mark.parametrize(
    "module", ["agent.privsep.helper", "agent.privsep.start", "agent.connectors.local", "agent.connectors._brick"]
)
def test_importing_loads_no_eventlet(module: str) -> None:
    code = (
        f"import {module}, sys\n"
        "assert sys.modules['eventlet'] is None\n"
        "assert not [name for name in sys.modules if name.startswith(('eventlet.', 'greenlet', 'os_brick'))]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_loading_os_brick_loads_no_eventlet() -> None:
    code = (
        "from agent.connectors import _brick\n"
        "_brick.load()\n"
        "import os_brick.initiator.connector, sys\n"
        "from oslo_service import backend\n"
        "assert backend.get_backend_type() is backend.BackendType.THREADING\n"
        "assert sys.modules['eventlet'] is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_eventlet_that_is_loaded_already_is_a_defect() -> None:
    code = "import sys, types\nsys.modules['eventlet'] = types.ModuleType('eventlet')\nimport agent.privsep.noeventlet"
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True)
    assert "must be imported first" in done.stderr
