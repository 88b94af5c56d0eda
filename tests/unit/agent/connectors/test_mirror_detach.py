"""A mirror is detached when its array is gone, whatever is left of its legs; one that ran before stays."""

from __future__ import annotations

import shutil
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest

from agent.connectors import nvme_raid
from agent.connectors.errors import DetachIncomplete, NoPath
from agent.connectors.nvme_raid import NvmeRaidConnector
from agent.host import md, nvme
from agent.privsep import md as verbs
from agent.privsep.errors import KernelRefused
from tests.unit.agent.connectors.test_mirror_reading import IDS, MIRROR, NAMES, legs
from tests.unit.agent.host.test_md import array
from tests.unit.agent.host.test_nvme import controller, namespace


class Host:
    """Privileged calls on a host in a folder; `legs` are what was done to replicas."""

    def __init__(self, sys: Path) -> None:
        self.sys, self.stopped, self.legs = sys, list[str](), list[tuple[str, str]]()
        self.stops = True

    async def call(self, verb: Any, *args: Any) -> bool:
        assert verb is verbs.md_stop
        self.stopped.append(args[0])
        if self.stops:
            shutil.rmtree(self.sys / "block" / args[0])
        return True

    async def attach(self, one: Any, **_: Any) -> Any:
        self.legs.append(("attach", one.target))
        raise NoPath(target=one.target, reason="nobody listens")

    async def answering(self, portals: Any, transport: str) -> Any:
        return tuple(portals)

    async def detach(self, one: Any, **_: Any) -> bool:
        self.legs.append(("detach", one.target))
        return False


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path)
    known, present, subsystem = md.known, nvme_raid.LEGS.present, nvme.subsystem
    monkeypatch.setattr(md, "known", lambda uuid, disks, _=None: known(uuid, disks, tmp_path))
    monkeypatch.setattr(nvme_raid.LEGS, "present", lambda one, _=None: present(one, tmp_path))
    monkeypatch.setattr(nvme, "subsystem", lambda target, _=None: subsystem(target, tmp_path))
    monkeypatch.setattr(nvme_raid, "call", made.call)
    monkeypatch.setattr(nvme_raid, "answering", made.answering)
    monkeypatch.setattr(nvme_raid.LEGS, "attach", made.attach)
    monkeypatch.setattr(nvme_raid.LEGS, "detach", made.detach)
    return made


BOTH = [("detach", name) for name in NAMES]


async def test_all_legs_are_gone(host: Host) -> None:
    array(host.sys, "md127", ("nvme0n1", "in_sync"), ("nvme1n1", "faulty"))
    connector = NvmeRaidConnector()
    assert connector.present(MIRROR, host.sys) is None, "it can not be used"
    assert await connector.heal(MIRROR) == tuple(f"{name} is not part of it" for name in NAMES)
    assert sorted(host.legs) == [("attach", name) for name in NAMES], "the kernel has given them up: once more"
    host.legs.clear()
    assert await connector.detach(MIRROR)
    assert (host.stopped, host.legs) == (["md127"], BOTH)
    assert not await connector.detach(MIRROR)


async def test_an_array_that_stays_is_not_told_as_detached(host: Host) -> None:
    array(host.sys, "md127", ("nvme0n1", "in_sync"))
    host.stops = False
    with pytest.raises(DetachIncomplete, match="/dev/md127; because: the kernel still shows it"):
        await NvmeRaidConnector().detach(MIRROR)
    assert host.legs == [], "its legs are given up after it"


async def test_an_attach_that_fails_leaves_nothing_but_what_ran_before(host: Host) -> None:
    connector = NvmeRaidConnector()
    with pytest.raises(NoPath):
        await connector.attach(MIRROR, deadline=1)
    assert host.legs == [*(("attach", name) for name in NAMES), *BOTH]
    legs(host.sys)
    array(host.sys, "md127", ("nvme0n1", "in_sync"), ("nvme1n1", "in_sync"))
    host.legs.clear()
    with pytest.raises(NoPath):
        await connector.attach(MIRROR, deadline=1)
    assert (host.stopped, host.legs) == ([], [("attach", name) for name in NAMES])


async def test_a_mirror_without_legs_does_not_keep_its_legs_from_coming_anew(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def started(self: NvmeRaidConnector, *_: Any) -> None:
        raise KernelRefused(action="start", device="the mirror", reason="the test ends here")

    async def connected(*_: Any) -> tuple[dict[str, Any], list[str]]:
        controller(host.sys, 5, 5, target=NAMES[0])
        namespace(host.sys, 5, identity=IDS[0])
        return {"nvme5n1": MIRROR.replicas[0]}, []

    monkeypatch.setattr(nvme_raid, "_connected", connected)
    monkeypatch.setattr(NvmeRaidConnector, "_start", started)
    array(host.sys, "md127", ("nvme0n1", "in_sync"), ("nvme1n1", "in_sync"))
    with pytest.raises(KernelRefused):
        await NvmeRaidConnector().attach(MIRROR, deadline=1)
    assert host.stopped == ["md127"]


@pytest.mark.parametrize("held", [False, True])
async def test_a_broken_mirror_is_started_anew_when_it_is_attached_again_unless_somebody_has_it(
    held: bool, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel refuses each write to it after all its legs were away at once; reads go on."""
    started: list[str] = []

    async def start(self: NvmeRaidConnector, *_: Any) -> None:
        started.append("anew")
        array(host.sys, "md127", ("nvme0n1", "in_sync"), ("nvme1n1", "in_sync"))

    async def connected(*_: Any) -> tuple[dict[str, Any], list[str]]:
        return {"nvme0n1": MIRROR.replicas[0], "nvme1n1": MIRROR.replicas[1]}, []

    monkeypatch.setattr(nvme_raid, "_connected", connected)
    monkeypatch.setattr(NvmeRaidConnector, "_start", start)
    monkeypatch.setattr(NvmeRaidConnector, "present", partialmethod(NvmeRaidConnector.present, sys=host.sys))
    legs(host.sys)
    array(host.sys, "md127", ("nvme0n1", "in_sync"), ("nvme1n1", "in_sync"), state="broken")
    connector = NvmeRaidConnector()
    (told,) = await connector.heal(MIRROR)
    assert "refuses every write to it" in told
    host.stops = not held
    await connector.attach(MIRROR, deadline=5)
    assert (host.stopped, started) == (["md127"], [] if held else ["anew"])
    assert len(await connector.heal(MIRROR)) == held
