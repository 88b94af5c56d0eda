"""What a node record says of an interface of open-iscsi, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.privsep import interfaces, noderecord
from agent.privsep.errors import InterfaceUnknown
from agent.privsep.noderecord import Login, Node

# As `iscsiadm -m iface -I tcpcopy --op=new` and `--op=update` leave it.
RECORD = """# BEGIN RECORD 2.1.8
iface.iscsi_ifacename = tcpcopy
iface.net_ifacename = <empty>
iface.ipaddress = 10.0.0.7
iface.hwaddress = <empty>
iface.transport_name = tcp
iface.initiatorname = iqn.2026-01.org.example:somebody-else
iface.vlan_id = 0
# END RECORD
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(interfaces, "IFACES", tmp_path)
    return tmp_path


def test_a_recorded_interface_goes_into_the_node_record_but_not_its_name_for_this_host(folder: Path) -> None:
    (folder / "tcpcopy").write_text(RECORD)
    text = noderecord.text(Node("iqn.2026-01.org.example:t", "10.0.0.1", 3260), Login(interfaces.lines("tcpcopy")))
    said = [line for line in text.splitlines() if line.startswith("iface.")]
    assert said == ["iface.iscsi_ifacename = tcpcopy", "iface.ipaddress = 10.0.0.7", "iface.transport_name = tcp",
                    "iface.vlan_id = 0"]  # fmt: skip


@pytest.mark.parametrize("name", ["default", "iser"])
def test_built_in_interfaces_need_no_record(folder: Path, name: str) -> None:
    assert interfaces.lines(name)["iface.iscsi_ifacename"] == name


@pytest.mark.parametrize(
    "record", [None, "", RECORD.replace("tcpcopy", "other"), RECORD.replace("= tcp\n", "=\n"), b"\xff"]
)
def test_what_is_no_record_of_it_is_refused(folder: Path, record: str | bytes | None) -> None:
    if record is not None:
        (folder / "tcpcopy").write_bytes(record if isinstance(record, bytes) else record.encode())
    with pytest.raises(InterfaceUnknown, match="tcpcopy"):
        interfaces.lines("tcpcopy")
