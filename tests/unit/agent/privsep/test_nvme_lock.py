"""A target's lock: held to end controllers alone, not to flush; waited for, but not for ever."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from fcntl import F_OFD_SETLK, F_RDLCK, F_WRLCK, fcntl
from pathlib import Path

import pytest

from agent.host import nvme as host
from agent.host.nvme import Namespace, Subsystem
from agent.privsep import locking, nvme
from agent.privsep.contexts import net
from agent.privsep.errors import KernelRefused

TARGET = "nqn.2026-01.io.brickyard:11111111-2222-4333-8444-555555555555"
SPACE = Namespace("nvme0n1", 1, "uuid.x", 512, 1, False)


@pytest.fixture(autouse=True)
def fabrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    file = tmp_path / "nvme-fabrics"
    file.touch()
    monkeypatch.setattr(nvme, "FABRICS", file)
    monkeypatch.setattr(host, "subsystem", lambda name: Subsystem(name, (), (SPACE,)))
    net.set_client_mode(False)
    yield file
    net.set_client_mode(True)


def free(fabrics: Path, kind: int = F_RDLCK) -> bool:
    """Whether a connect, or a disconnect, could have its lock now, whatever the target's place."""
    with fabrics.open("r+b") as file:
        try:
            fcntl(file, F_OFD_SETLK, struct.pack("hhqqi4x", kind, 0, 0, 0, 0))
        except BlockingIOError:
            return False
    return True


def test_the_flush_is_not_under_the_lock(fabrics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool]] = []
    monkeypatch.setattr(nvme, "_released", lambda found, disk: seen.append((disk, free(fabrics))))
    monkeypatch.setattr(nvme, "_unused", lambda disk: seen.append((disk, free(fabrics))))
    assert nvme.nvme_disconnect(TARGET, SPACE.name)
    assert seen == [(SPACE.name, True), (SPACE.name, False)]


def test_a_lock_is_waited_for(fabrics: Path) -> None:
    ended: list[bool] = []
    with nvme._alone(TARGET, exclusive=False):
        waiting = threading.Thread(target=lambda: ended.append(nvme.nvme_disconnect(TARGET)))
        waiting.start()
        waiting.join(0.3)
        assert not ended
    waiting.join(60)
    assert ended == [True]


def test_who_has_waited_too_long_does_nothing_later(fabrics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locking, "WAIT_S", 0.1)
    seen: list[str] = []
    monkeypatch.setattr(nvme, "_unused", seen.append)
    before = set(threading.enumerate())
    with nvme._alone(TARGET, exclusive=False), pytest.raises(KernelRefused, match="does not end"):
        nvme.nvme_disconnect(TARGET)
    for left in set(threading.enumerate()) - before:
        left.join(60)
    assert free(fabrics, F_WRLCK)
    assert seen == []
