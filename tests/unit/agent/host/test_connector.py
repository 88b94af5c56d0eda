"""How a host presents itself, out of a made-up file tree, and beside os-brick on the real one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from agent.host import connector

BRICK = """
import json
from agent.connectors import _brick
_brick.load()
import os_brick
from os_brick.initiator import connector
from os_brick.privileged import default
from oslo_config import cfg
cfg.CONF([], project="test")
os_brick.setup(cfg.CONF)
default.set_client_mode(False)
print(json.dumps(connector.get_connector_properties(None, "10.0.0.1", False, False)))
"""
# os-brick takes these from tools of root, or makes them where they are not there; we only read. Two of them are of a
# discovery client of LightOS, told wherever nvme-cli is installed.
OWN = {"uuid", "nqn", "nvme_hostid", "system uuid", "found_dsc", "host_ips", "multipath"}


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_a_host_with_every_transport(tmp_path: Path) -> None:
    _put(tmp_path / "etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.1993-08.org.debian:01:abc")
    _put(tmp_path / "etc/nvme/hostnqn", "nqn.2014-08.org.nvmexpress:uuid:1")
    _put(tmp_path / "etc/nvme/hostid", "4ee1b2d0-0000-4000-8000-000000000001")
    _put(tmp_path / "sys/module/nvme_core/parameters/multipath", "Y")
    (tmp_path / "sys/module/nvme_tcp").mkdir()
    _put(tmp_path / "dev/nvme-fabrics", "")
    for host, state in (("host1", "Online"), ("host2", "Linkdown")):
        for name, value in (("port_name", "0x10000090fa1b2c3d"), ("node_name", "0x20000090fa1b2c3d")):
            _put(tmp_path / "sys/class/fc_host" / host / name, value)
        _put(tmp_path / "sys/class/fc_host" / host / "port_state", state)
    told = connector.properties("10.0.0.5", tmp_path)
    assert (told["ip"], told["initiator"]) == ("10.0.0.5", "iqn.1993-08.org.debian:01:abc")
    assert (told["wwpns"], told["wwnns"]) == (["10000090fa1b2c3d"], ["20000090fa1b2c3d"])
    assert (told["nqn"], told["nvme_native_multipath"]) == ("nqn.2014-08.org.nvmexpress:uuid:1", True)
    assert told["nvme_hostid"] == "4ee1b2d0-0000-4000-8000-000000000001"


def test_a_bare_host_leaves_out_what_it_has_not(tmp_path: Path) -> None:
    told = connector.properties("10.0.0.5", tmp_path)
    assert {"initiator", "nqn", "wwpns", "wwnns", "nvme_hostid"}.isdisjoint(told)


def test_the_same_words_as_os_brick_on_this_host() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", BRICK], check=True, capture_output=True, text=True)
    brick, own = json.loads(done.stdout.splitlines()[-1]), connector.properties("10.0.0.1")
    shared = set(brick) - OWN
    assert {name: own.get(name) for name in shared} == {name: brick[name] for name in shared}
    assert set(own) - set(brick) <= OWN
