"""Host facts out of a made-up file tree, and a look at the real host."""

from __future__ import annotations

import os
from pathlib import Path

from agent.host import facts


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_made_up_host(tmp_path: Path) -> None:
    _put(tmp_path / "proc/sys/kernel/random/boot_id", "d6e0f9d2-0000-4000-8000-000000000001\n")
    _put(tmp_path / "etc/iscsi/initiatorname.iscsi", "## comment\nInitiatorName=iqn.1993-08.org.debian:01:abc\n")
    _put(tmp_path / "etc/nvme/hostnqn", "nqn.2014-08.org.nvmexpress:uuid:1\n")
    _put(tmp_path / "sys/class/fc_host/host1/port_name", "0x10000090fa1b2c3d\n")
    _put(tmp_path / "sys/class/fc_host/host2/port_name", "nonsense\n")
    _put(tmp_path / "sys/class/net/lo/operstate", "unknown\n")
    _put(tmp_path / "sys/class/net/enc1/operstate", "up\n")
    _put(tmp_path / "dev/loop-control", "")
    found = facts.host_facts(tmp_path)
    assert found.boot_id == "d6e0f9d2-0000-4000-8000-000000000001"
    assert found.initiator_iqn == "iqn.1993-08.org.debian:01:abc"
    assert found.nqn == "nqn.2014-08.org.nvmexpress:uuid:1"
    assert found.wwpns == ("10000090fa1b2c3d",)
    assert found.links == {"enc1": "up"}
    assert found.capabilities == ("fc", "loop")


def test_a_bare_host_has_no_names(tmp_path: Path) -> None:
    found = facts.host_facts(tmp_path)
    assert (found.boot_id, found.initiator_iqn, found.nqn, found.wwpns, found.links) == ("", None, None, (), {})


def test_the_real_host() -> None:
    found = facts.host_facts()
    assert found.kernel == os.uname().release
    assert len(found.boot_id) == 36
    assert "lo" not in found.links
