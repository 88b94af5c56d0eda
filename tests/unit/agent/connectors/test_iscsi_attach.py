"""What an iSCSI attach that fails takes away: what it has made itself, and nothing that was proven before."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.connectors import iscsi, iscsi_paths
from agent.connectors.errors import DeviceMismatch, NoPath
from agent.connectors.iscsi import IscsiConnector
from agent.host import scsi, udev
from agent.privsep import iscsi as verbs
from agent.privsep import waiting
from agent.privsep.errors import LoginFailed, LoginRefused
from agent.wire.jobs import Portal
from tests.unit.agent.connectors.test_iscsi_reading import CONNECTION
from tests.unit.agent.host.test_scsi import TARGET, session

ONE, TWO = Portal(address="10.0.0.1", port=3260), Portal(address="10.1.0.1", port=3260)
SINGLE = CONNECTION.model_copy(update={"portals": (ONE,)})
DOUBLE = CONNECTION.model_copy(update={"portals": (ONE, TWO)})


class Host:
    """A host in a folder. `logins` says what a log-in at a portal's address does; the other verbs end sessions."""

    def __init__(self, sys: Path) -> None:
        self.sys, self.calls = sys, list[tuple[Any, ...]]()
        self.logins: dict[str, Callable[[], None]] = {}

    async def call(self, verb: Any, *args: Any, **_: Any) -> bool:
        self.calls.append((verb.args[0].__name__, *args))
        if verb is verbs.iscsi_login:
            self.logins[args[1]]()
        if verb is verbs.iscsi_logout:
            (self.sys / f"class/iscsi_session/session{args[0]}").unlink()
        return True

    def without_a_disk(self, number: int, address: str) -> None:
        session(self.sys, number, host=number, address=address, name=f"gone{number}")
        shutil.rmtree(self.sys / f"devices/platform/host{number}/session{number}/target{number}:0:0")

    @property
    def changed(self) -> list[tuple[Any, ...]]:
        """Calls that take something away."""
        return [one for one in self.calls if one[0] not in {"iscsi_login", "scsi_rescan"}]


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made, sessions, disk = Host(tmp_path), scsi.sessions, scsi.disk
    monkeypatch.setattr(scsi, "sessions", lambda target=None, _=None: sessions(target, tmp_path))
    monkeypatch.setattr(scsi, "disk", lambda address, _=None: disk(address, tmp_path))
    monkeypatch.setattr(scsi, "multipath_map", lambda identity, _=None: None)
    monkeypatch.setattr(scsi, "multipathd_listens", lambda: False)
    monkeypatch.setattr(udev, "claimed_by_multipath", lambda name: False)
    monkeypatch.setattr(udev, "subscribed", quiet)
    monkeypatch.setattr(waiting, "_KERNEL_DEADLINE", 0.05)
    monkeypatch.setattr(iscsi, "worth_trying", everywhere)
    for module in (iscsi, iscsi_paths):
        monkeypatch.setattr(module, "call", made.call)
    return made


@asynccontextmanager
async def quiet(**_: Any) -> AsyncIterator[udev.Events]:
    yield udev.Events(udevd=False)


async def everywhere(portals: tuple[Portal, ...], there: object, by: str) -> tuple[tuple[Portal, ...], list[str]]:
    return portals, []


@pytest.mark.parametrize("error", [LoginRefused, LoginFailed])
async def test_what_was_proven_before_stays(host: Host, error: type[LoginRefused] | type[LoginFailed]) -> None:
    def fails() -> None:
        raise error(target=TARGET, portal="10.0.0.1:3260", reason="it does not answer")

    session(host.sys, 1)
    host.logins[ONE.address] = fails
    with pytest.raises((LoginRefused, NoPath)):
        await IscsiConnector().attach(SINGLE)
    assert host.changed == []
    assert IscsiConnector().present(SINGLE, host.sys) is not None


async def test_what_was_not_there_before_goes(host: Host) -> None:
    host.logins[ONE.address] = lambda: session(host.sys, 1, identity="naa.60014059999999999999999999999999")
    with pytest.raises(DeviceMismatch):
        await IscsiConnector().attach(SINGLE)
    assert ("iscsi_logout", 1, TARGET, "") in host.changed
    assert scsi.sessions(TARGET) == ()


async def test_a_portal_that_shows_no_disk_is_left_before_the_next_is_tried(host: Host) -> None:
    host.logins[ONE.address] = lambda: host.without_a_disk(1, ONE.address)
    host.logins[TWO.address] = lambda: session(host.sys, 2, host=4, address=TWO.address, name="sdb")
    found = await IscsiConnector().attach(DOUBLE, deadline=5)
    assert found.paths == ("sdb",)
    assert [one.number for one in scsi.sessions(TARGET)] == [2]
    assert host.changed == [
        ("iscsi_logout", 1, TARGET, ""), ("iscsi_forget", TARGET, [(ONE.address, ONE.port)]),
    ]  # fmt: skip


async def test_a_session_that_was_there_and_shows_no_disk_now_is_not_this_attachs_to_end(host: Host) -> None:
    """Another volume's, perhaps, whose array is slow: only where nothing at all comes is the target given up."""
    host.without_a_disk(1, ONE.address)
    host.logins[ONE.address] = lambda: None
    host.logins[TWO.address] = lambda: session(host.sys, 2, host=4, address=TWO.address, name="sdb")
    assert (await IscsiConnector().attach(DOUBLE, deadline=5)).paths == ("sdb",)
    assert host.changed == []


async def test_sessions_with_another_volumes_disk_stay(host: Host) -> None:
    """One target of an array has many volumes: this one does not come, and the other one's session is in use."""
    session(host.sys, 1, lun=7, identity="naa.60014057777777777777777777777777")
    host.logins[ONE.address] = lambda: None
    with pytest.raises(NoPath):
        await IscsiConnector().attach(SINGLE, deadline=5)
    assert [one[0] for one in host.changed if one[0] in {"iscsi_logout", "iscsi_forget", "scsi_delete"}] == []
    assert len(scsi.sessions(TARGET)) == 1
