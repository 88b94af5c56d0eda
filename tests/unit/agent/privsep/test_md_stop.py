"""Which arrays are ended, and what is flushed: none of this host's own disks, nothing that can not be written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host import md, nvme, sysfs
from agent.privsep import md as verbs
from agent.privsep import tool
from agent.privsep.contexts import net
from agent.privsep.errors import DeviceHeld, KernelRefused, VerbRefused
from tests.unit.agent.host.test_md import array
from tests.unit.agent.host.test_nvme import controller, namespace
from tests.unit.agent.host.test_scsi import put

STOP = ["--stop", "/dev/md126001"]


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    arrays, subsystems, going, users = md.arrays, nvme.subsystems, nvme.is_going, sysfs.users_of
    monkeypatch.setattr(md, "arrays", lambda: arrays(tmp_path))
    monkeypatch.setattr(nvme, "subsystems", lambda _=None: subsystems(tmp_path))
    monkeypatch.setattr(nvme, "is_going", lambda name: going(name, tmp_path))
    monkeypatch.setattr(sysfs, "users_of", lambda name: users(name, tmp_path, tmp_path))
    net.set_client_mode(False)
    yield tmp_path
    net.set_client_mode(True)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    made: list[list[str]] = []

    def run(name: str, arguments: tuple[str, ...], **_: object) -> tool.Ended:
        made.append(list(arguments))
        return tool.Ended(0, "")

    monkeypatch.setattr(tool, "run", run)
    return made


def test_legs_that_have_gone_are_not_asked_and_nothing_is_flushed(host: Path, ran: list[list[str]]) -> None:
    array(host, "md126001", ("nvme0n1", "in_sync"), ("nvme1n1", "faulty"))
    assert verbs.md_stop("md126001")
    assert ran == [STOP]


def test_a_leg_without_a_live_path_can_not_be_flushed(host: Path, ran: list[list[str]]) -> None:
    array(host, "md126001", ("nvme0n1", "in_sync"))
    controller(host, 0, 0, state="connecting")
    namespace(host, 0)
    assert verbs.md_stop("md126001")
    assert ran == [STOP]


def test_one_with_a_leg_that_is_just_going_is_ended_and_one_over_a_local_disk_is_not(
    host: Path, ran: list[list[str]]
) -> None:
    array(host, "md126001", ("nvme0n1", "faulty"))
    controller(host, 0, 0)
    namespace(host, 0)
    (host / "class/nvme/nvme0/transport").unlink()
    assert verbs.md_stop("md126001")
    assert ran == [STOP]
    put(host / "class/nvme/nvme0/transport", "pcie")
    with pytest.raises(VerbRefused, match="other than namespaces over a fabric"):
        verbs.md_stop("md126001")


def test_one_that_answers_is_flushed_first(host: Path, ran: list[list[str]]) -> None:
    array(host, "md126001", ("nvme0n1", "in_sync"), ("nvme1n1", "in_sync"))
    controller(host, 0, 0)
    namespace(host, 0)
    with pytest.raises(KernelRefused, match="flush /dev/md126001"):  # there is no such node here
        verbs.md_stop("md126001")
    assert ran == []


def test_a_broken_one_takes_no_flush_and_is_ended(host: Path, ran: list[list[str]]) -> None:
    array(host, "md126001", ("nvme0n1", "in_sync"), state="broken")
    controller(host, 0, 0)
    namespace(host, 0)
    assert verbs.md_stop("md126001")
    assert ran == [STOP]


def test_one_that_is_told_as_broken_when_its_flush_fails_is_ended(
    host: Path, ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    array(host, "md126001", ("nvme0n1", "in_sync"), state="active")
    controller(host, 0, 0)
    namespace(host, 0)

    real = os.open

    def fails(path: str, flags: int) -> int:
        if not str(path).startswith("/dev/"):
            return real(path, flags)
        put(host / "block/md126001/md/array_state", "broken")
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(verbs.os, "open", fails)
    assert verbs.md_stop("md126001")
    assert ran == [STOP]


@pytest.mark.parametrize("gone", [True, False])
def test_an_array_of_local_disks_is_refused(gone: bool, host: Path, ran: list[list[str]]) -> None:
    array(host, "md126001", ("sda1", "in_sync"), ("nvme0n1", "in_sync"))
    if not gone:
        put(host / "block/nvme0n1/size", "2048")
    with pytest.raises(VerbRefused, match="other than namespaces over a fabric"):
        verbs.md_stop("md126001")
    assert ran == []


def test_a_local_namespace_is_none_over_a_fabric(host: Path, ran: list[list[str]]) -> None:
    array(host, "md126001", ("nvme0n1", "in_sync"))
    controller(host, 0, 0, transport="pcie")
    namespace(host, 0)
    with pytest.raises(VerbRefused):
        verbs.md_stop("md126001")
    assert ran == []


def test_one_in_use_stays(host: Path, ran: list[list[str]]) -> None:
    array(host, "md126001", ("nvme0n1", "in_sync"))
    put(host / "block/md126001/holders/dm-3/x", "")
    with pytest.raises(DeviceHeld, match="dm-3"):
        verbs.md_stop("md126001")
    assert ran == []
