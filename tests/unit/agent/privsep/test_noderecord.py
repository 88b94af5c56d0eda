"""Node records: whole, root's alone, one per portal, gone with the last one."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from agent.privsep import noderecord, tool
from agent.privsep.errors import KernelRefused
from agent.privsep.noderecord import Login, Node

TARGET = "iqn.2026-01.io.brickyard:11111111-2222-4333-8444-555555555555"


@pytest.fixture(autouse=True)
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "nodes"
    monkeypatch.setattr(noderecord, "NODES", folder)
    return folder


def test_a_record_is_roots_alone_and_says_what_is_needed(nodes: Path) -> None:
    node = Node(TARGET, "fd00::1", 3260)
    login = Login(username="someone", secret="canary-secret", multipath=True)
    assert "canary" not in repr(login)
    noderecord.keep(node, login)
    assert node.portal == "[fd00::1]:3260"
    assert node.file == nodes / TARGET / "fd00::1,3260"
    assert node.file.stat().st_mode & 0o777 == 0o600
    lines = node.file.read_text().splitlines()
    assert {"node.session.auth.password = canary-secret", "node.session.scan = manual", "node.startup = manual",
            "node.conn[0].address = fd00::1", "node.session.timeo.replacement_timeout = 5"} <= set(lines)  # fmt: skip
    assert [entry.name for entry in nodes.parent.iterdir()] == ["nodes"], "nothing half-written lies about"


def test_without_a_secret_nothing_of_chap_is_said() -> None:
    text = noderecord.text(Node(TARGET, "10.0.0.1", 3260), Login())
    assert "authmethod = None" in text
    assert "password" not in text
    assert "replacement_timeout" not in text


def test_a_record_of_ours_is_told_from_those_of_others(nodes: Path) -> None:
    node = Node(TARGET, "10.0.0.1", 3260)
    assert not noderecord.is_ours(node)
    noderecord.keep(node, Login(username="someone", secret="canary-secret"))
    assert noderecord.is_ours(node)
    lines = node.file.read_text()
    # What `iscsiadm -o update` of one value leaves: a whole record, with the other values as they were.
    node.file.write_text(lines.replace("node.startup = manual", "node.startup = automatic") + "node.tpgt = 1\n")
    assert noderecord.is_ours(node)
    for line in ("node.session.initial_login_retry_max = 8", "node.discovery_type = send_targets"):
        key = line.partition(" = ")[0]
        others = "\n".join(line if each.startswith(key) else each for each in lines.splitlines())
        node.file.write_text(others)
        assert not noderecord.is_ours(node)


def test_the_last_record_takes_the_folder_with_it(nodes: Path) -> None:
    one, two = Node(TARGET, "10.0.0.1", 3260), Node(TARGET, "10.0.0.2", 3260)
    noderecord.keep(one, Login())
    noderecord.keep(two, Login())
    assert noderecord.portals(TARGET) == ["10.0.0.1,3260", "10.0.0.2,3260"]
    assert noderecord.forget(one)
    assert not noderecord.forget(one)
    assert noderecord.forget(two)
    assert not (nodes / TARGET).exists()
    assert noderecord.portals(TARGET) == []


def test_what_was_left_half_written_goes_with_the_record(nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, to: Path) -> None:
        raise OSError(28, "No space left on device")

    node, other = Node(TARGET, "10.0.0.1", 3260), Node(TARGET, "10.0.0.2", 3260)
    monkeypatch.setattr(Path, "replace", full)
    for one in (node, other):
        with pytest.raises(KernelRefused, match="No space"):
            noderecord.keep(one, Login(username="someone", secret="canary-secret"))
    noderecord.forget(node)
    assert len(list(nodes.parent.glob(".brickyard-*"))) == 1, "the other one may be written just now"
    noderecord.forget(other)
    assert not list(nodes.parent.glob(".brickyard-*"))


def test_a_tool_that_outlives_its_daemon_holds_the_lock_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    with noderecord.claimed(TARGET, alone=False) as lock:
        assert tool.run("sh", ["-c", f"test -d /proc/self/fd/{lock}"], lock=lock).code == 0
        left = subprocess.Popen(["sleep", "600"], pass_fds=(lock,))
    try:
        monkeypatch.setattr(noderecord, "_WAIT_S", 0.0)
        with noderecord.claimed(TARGET, alone=False):
            pass
        with pytest.raises(KernelRefused, match="does not end"), noderecord.claimed(TARGET, alone=True):
            pass
    finally:
        left.kill()
        left.wait()
    with noderecord.claimed(TARGET, alone=True):
        pass


def test_a_lock_is_of_the_folder_that_is_there(nodes: Path) -> None:
    there: list[bool] = []

    def wait() -> None:
        with noderecord.claimed(TARGET, alone=True) as lock:
            there.append(noderecord._is(lock, nodes / TARGET))

    with noderecord.claimed(TARGET, alone=True):
        waiting = threading.Thread(target=wait)
        waiting.start()
        (nodes / TARGET).rmdir()
    waiting.join(60)
    assert there == [True]


def test_a_folder_removed_while_it_is_opened_is_made_anew(nodes: Path) -> None:
    rounds: list[int] = []

    def come_and_go() -> None:
        for each in range(200):
            with noderecord.claimed(TARGET, alone=True):
                (nodes / TARGET).rmdir()
                rounds.append(each)

    users = [threading.Thread(target=come_and_go) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join(100)
    assert len(rounds) == 800
