"""Sessions and records of others on this host are left alone: the system itself may run from one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.host import kernel, scsi, sysfs
from agent.privsep import devices, iscsi, noderecord, tool
from agent.privsep.contexts import net
from agent.privsep.errors import DeviceHeld, KernelRefused, SessionForeign
from agent.privsep.noderecord import Login, Node
from tests.support.processes import needs_node, opened
from tests.unit.agent.host.test_scsi import TARGET, session

NODE = Node(TARGET, "10.0.0.1", 3260)
PORTALS = [(NODE.address, NODE.port)]
FOREIGN = (
    "# BEGIN RECORD 2.1\nnode.discovery_type = send_targets\nnode.session.auth.password = of-others\n# END RECORD\n"
)
Tools = list[list[str]]


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A host in a folder, with one session to the target; open-iscsi's tool is only noted."""
    sys = tmp_path / "sys"
    sessions, one, of, disk, users = scsi.sessions, scsi.session, scsi.session_of, scsi.disk, sysfs.users_of
    monkeypatch.setattr(scsi, "sessions", lambda target=None, _=None: sessions(target, sys))
    monkeypatch.setattr(scsi, "session", lambda number, _=None: one(number, sys))
    monkeypatch.setattr(scsi, "session_of", lambda name, _=None: of(name, sys))
    monkeypatch.setattr(scsi, "disk", lambda address, _=None: disk(address, sys))
    monkeypatch.setattr(sysfs, "users_of", lambda name: users(name, sys, tmp_path))
    monkeypatch.setattr(sysfs, "SYS", sys)
    monkeypatch.setattr(devices, "flush", lambda name: None)
    monkeypatch.setattr(noderecord, "NODES", tmp_path / "nodes")
    real, ours = kernel.current(), kernel.Kernel()
    ours.sys, ours.proc = sys, tmp_path / "proc"
    kernel.use(ours)
    session(sys, 1)
    (sys / "class/scsi_device/3:0:0:0/device/delete").write_text("")
    net.set_client_mode(False)
    yield sys
    kernel.use(real)
    net.set_client_mode(True)


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Tools:
    ran: Tools = []

    def run(program: str, arguments: list[str], **_: object) -> tool.Ended:
        ran.append([program, *arguments])
        return tool.Ended(0, "")

    monkeypatch.setattr(tool, "run", run)
    return ran


@pytest.mark.parametrize(
    "work",
    [
        lambda: iscsi.iscsi_logout(1, TARGET),
        lambda: iscsi.iscsi_logout(1, TARGET, "3:0:0:0"),
        lambda: iscsi.scsi_delete("3:0:0:0", False),
        lambda: iscsi.scsi_cut("3:0:0:0"),
        lambda: iscsi.iscsi_give_up(1),
        lambda: iscsi.iscsi_login(TARGET, *PORTALS[0], 0),
    ],
    ids=["logout", "logout-with-its-disk", "delete", "cut", "give-up", "login"],
)
@pytest.mark.parametrize("record", ["", FOREIGN], ids=["without-a-record", "with-their-record"])
def test_a_session_of_others_is_not_touched(work: Callable[[], object], record: str, host: Path, tools: Tools) -> None:
    if record:
        NODE.file.parent.mkdir(parents=True)
        NODE.file.write_text(record)
    with pytest.raises(SessionForeign, match="used by somebody else") as told:
        work()
    assert f"iscsiadm -m node -T {TARGET} -p 10.0.0.1:3260 --logout" in told.value.remedy
    assert tools == []
    assert (host / "class/scsi_device/3:0:0:0/device/delete").read_text() == ""
    assert (NODE.file.read_text() if record else "") == record


def test_a_session_of_ours_is_ended_and_its_record_stays_as_long(host: Path, tools: Tools) -> None:
    noderecord.keep(NODE, Login())
    assert not iscsi.iscsi_forget(TARGET, PORTALS)
    assert noderecord.is_ours(NODE), "it says whose the session is"
    assert iscsi.iscsi_logout(1, TARGET, "3:0:0:0")
    assert tools == [["iscsiadm", "-m", "session", "-r", "1", "--logout"]]
    assert (host / "class/scsi_device/3:0:0:0/device/delete").read_text() == "1"
    (host / "class/iscsi_session/session1").unlink()
    assert not iscsi.iscsi_logout(1, TARGET)
    assert iscsi.iscsi_forget(TARGET, PORTALS)
    assert not NODE.file.exists()


def test_the_record_of_others_is_neither_replaced_nor_removed_nor_used(host: Path, tools: Tools) -> None:
    (host / "class/iscsi_session/session1").unlink()
    NODE.file.parent.mkdir(parents=True)
    NODE.file.write_text(FOREIGN)
    with pytest.raises(SessionForeign, match="its node record is not this agent's"):
        iscsi.iscsi_login(TARGET, *PORTALS[0], 0)
    with pytest.raises(KernelRefused, match="not ours"):
        iscsi.iscsi_login_again(TARGET, *PORTALS[0], 0)
    assert not iscsi.iscsi_forget(TARGET, PORTALS)
    assert NODE.file.read_text() == FOREIGN
    assert tools == []


def test_a_log_in_again_to_what_is_ours_is_fine(tools: Tools) -> None:
    noderecord.keep(NODE, Login())
    assert not iscsi.iscsi_login(TARGET, *PORTALS[0], 0)
    assert tools == [["iscsiadm", "-m", "node", "-T", TARGET, "-p", NODE.portal, "--login"]]


@needs_node
def test_a_disk_that_a_process_has_open_keeps_its_session(host: Path, tools: Tools) -> None:
    noderecord.keep(NODE, Login())
    sda, proc = host / "block/sda", host.parent / "proc"
    for work in (lambda: iscsi.iscsi_logout(1, TARGET, "3:0:0:0"), lambda: iscsi.scsi_delete("3:0:0:0", True)):
        with opened(sda, proc), pytest.raises(DeviceHeld, match=r"process 4711 .qemu-system-x86"):
            work()
    assert tools == []
    assert (host / "class/scsi_device/3:0:0:0/device/delete").read_text() == ""
    with opened(sda, proc, "multipathd"):
        assert iscsi.iscsi_logout(1, TARGET, "3:0:0:0")


def test_a_disk_in_use_keeps_its_session(host: Path, tools: Tools) -> None:
    noderecord.keep(NODE, Login())
    (host / "block/sda/holders/dm-3").mkdir(parents=True)
    with pytest.raises(DeviceHeld, match="dm-3"):
        iscsi.iscsi_logout(1, TARGET, "3:0:0:0")
    assert tools == []
