"""Verbs without privileges: a clear error instead of a try at sudo; and no eventlet in any case."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.privsep import block, client
from agent.privsep.errors import PrivilegeUnavailable

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
