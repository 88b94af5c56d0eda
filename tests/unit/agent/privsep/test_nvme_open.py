"""A namespace that a process has open is not taken away, but where no path answers; by force it is, and flushed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host import kernel, nvme
from agent.privsep import devices
from agent.privsep import nvme as verbs
from agent.privsep.contexts import net
from agent.privsep.errors import DeviceHeld
from tests.support.processes import needs_node, opened
from tests.unit.agent.host.test_nvme import TARGET, controller, namespace

pytestmark = needs_node
DISK = "nvme0n1"


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One path to one namespace, of a kernel whose files are plain ones."""
    real, ours, read = kernel.current(), kernel.Kernel(), nvme.subsystem
    ours.sys, ours.proc, ours.dev = tmp_path / "sys", tmp_path / "proc", tmp_path
    monkeypatch.setattr(nvme, "subsystem", lambda target: read(target, ours.sys))
    monkeypatch.setattr(verbs.sysfs, "SYS", ours.sys)
    monkeypatch.setattr(verbs, "FABRICS", tmp_path / "fabrics")
    (tmp_path / "fabrics").touch()
    controller(ours.sys, 0, 0)
    namespace(ours.sys, 0)
    (ours.sys / "class/nvme/nvme0/delete_controller").touch()
    kernel.use(ours)
    net.set_client_mode(False)
    yield tmp_path
    net.set_client_mode(True)
    kernel.use(real)


def ended(host: Path) -> bool:
    return (host / "sys/class/nvme/nvme0/delete_controller").read_text() == "1"


def test_it_stays(host: Path) -> None:
    with opened(host / "sys/block" / DISK, host / "proc"):
        for verb in (verbs.nvme_disconnect, verbs.nvme_release):
            with pytest.raises(DeviceHeld, match=r"process 4711 .qemu-system-x86"):
                verb(TARGET, DISK)
    assert not ended(host)


def test_without_a_path_nobody_is_waited_for(host: Path) -> None:
    (host / "sys/class/nvme/nvme0/state").write_text("connecting\n")
    with opened(host / "sys/block" / DISK, host / "proc"):
        assert verbs.nvme_disconnect(TARGET, DISK)
    assert ended(host)


def test_by_force_it_is_flushed_and_taken_away(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(devices, "flush", flushed.append)
    with opened(host / "sys/block" / DISK, host / "proc"):
        assert verbs.nvme_cut(TARGET, DISK)
    assert flushed == [DISK]
    assert ended(host)
