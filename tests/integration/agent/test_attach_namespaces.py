"""A device of an earlier life of the unit: its mount namespace is gone, and with it the path that the kernel tells."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.backends.config import FileBackendConfig
from agent.backends.file import FileBackend
from agent.base.ids import new_id
from agent.connectors import local
from agent.host import sysfs
from agent.jobs import desired
from agent.jobs.errors import VolumeInUse
from agent.jobs.handlers import attachment_apply
from agent.jobs.handlers.common import refuse_if_in_use
from agent.jobs.journal import Journal
from agent.jobs.kinds import Context
from agent.jobs.services import Services
from agent.privsep import client, contexts, limits, start
from agent.wire.jobs import AttachmentApply, Generation, WantedAttachment

SIZE = 4 << 20
_ATTACH = """
import sys
from agent.privsep import block, start
start.start_direct([sys.argv[1]])
print(block.loop_attach(sys.argv[2], False, sys.argv[3])["device"])
"""
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="needs root and loop devices"
    ),
]


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    before = limits.current()
    start.start_direct([tmp_path])
    journal = Journal(tmp_path / "journal.db")
    await journal.open()
    backend = FileBackend("files", FileBackendConfig(path=tmp_path / "files"))
    yield Services(host="host-a", journal=journal, backends={"files": backend}, boot_id="this")
    for loop in sysfs.loop_devices():
        if loop.file_name in os.listdir(tmp_path / "files" / "volumes"):
            subprocess.run(["losetup", "-d", f"/dev/{loop.name}"], check=False)
    backend.close()
    await journal.close()
    limits.use(before)
    client.set_mode("none")
    for context in contexts.BY_NAME.values():
        context.set_client_mode(True)


def attached_elsewhere(root: Path, volume: Path, attachment: str) -> str:
    """Attach as a unit with its own mounts does (ReadWritePaths), and end it; the device."""
    script = 'mount --bind "$1" "$1" && exec "$2" -c "$3" "$1" "$4" "$5"'
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", str(root), sys.executable, _ATTACH,
         str(volume), attachment],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


async def test_a_device_of_a_namespace_that_is_gone_is_still_ours(services: Services, tmp_path: Path) -> None:
    backend, volume, attachment = services.backend("files"), new_id(), new_id()
    await backend.create(volume, SIZE)
    path = await backend.path(volume)
    device = attached_elsewhere(tmp_path, path, attachment)
    seen = sysfs.loop_device(int(device.removeprefix("/dev/loop")))
    assert seen is not None
    assert seen.backing_file != str(path)  # what this test is about

    context = Context(key="op/x/1", services=services, report=lambda _: None, save=_save)
    with pytest.raises(VolumeInUse, match=device):
        await refuse_if_in_use(context, backend, volume)
    assert (await local.verify(path, attachment, SIZE)).device == device

    wanted = (WantedAttachment(attachment_id=attachment),)
    generation = Generation(incarnation=1, sequence=1)
    apply = AttachmentApply(backend="files", volume_id=volume, generation=generation, wanted=wanted)
    result = await attachment_apply.run(context, apply)
    assert [one.device for one in result.attached] == [device]
    (row,) = await services.journal.read(desired.all_rows)
    assert desired.state_of(row, "this") == "attached"

    gone = AttachmentApply(backend="files", volume_id=volume, generation=Generation(incarnation=1, sequence=2))
    assert (await attachment_apply.run(context, gone)).attached == ()
    assert volume not in [loop.file_name for loop in sysfs.loop_devices()]
    assert await services.journal.read(desired.all_rows) == []


async def test_after_a_reboot_a_row_is_missing_and_can_be_detached(services: Services) -> None:
    backend, volume, attachment = services.backend("files"), new_id(), new_id()
    await backend.create(volume, SIZE)
    context = Context(key="op/x/1", services=services, report=lambda _: None, save=_save)
    wanted = (WantedAttachment(attachment_id=attachment),)
    generation = Generation(incarnation=1, sequence=1)
    await attachment_apply.run(
        context, AttachmentApply(backend="files", volume_id=volume, generation=generation, wanted=wanted)
    )
    (row,) = await services.journal.read(desired.all_rows)
    assert desired.state_of(row, "this") == "attached"
    # After a reboot: another boot id, the binding gone, and a stranger's loop device of the same number and file.
    subprocess.run(["losetup", "-d", row.device], check=True)
    subprocess.run(["losetup", row.device, await backend.path(volume)], check=True)
    assert desired.state_of(row, "this") == "missing"
    assert desired.state_of(row, "another") == "missing"
    subprocess.run(["losetup", "-d", row.device], check=True)
    gone = AttachmentApply(backend="files", volume_id=volume, generation=Generation(incarnation=1, sequence=2))
    await attachment_apply.run(context, gone)
    assert await services.journal.read(desired.all_rows) == []


async def _save(checkpoint: dict[str, object]) -> None:
    return None
