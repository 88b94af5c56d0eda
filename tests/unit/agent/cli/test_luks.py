"""`brickyard-agent luks` on real headers, judged by cryptsetup."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.base.terminal.entry import outcome
from agent.cli.main import cli
from agent.luks.blank import make_blank
from agent.luks.model import Format, Secret
from tests.support.luks import opens

pytestmark = pytest.mark.skipif(shutil.which("cryptsetup") is None, reason="needs cryptsetup")
OLD, KEY = b"a passphrase", bytes(range(32))


@pytest.fixture(params=["luks1", "luks2"])
async def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    path.touch()
    await make_blank(path, 1 << 20, Format(request.param), Secret("passphrase", OLD), iterations=1000)
    (tmp_path / "old").write_bytes(OLD)
    (tmp_path / "new").write_bytes(KEY)
    (tmp_path / "agent.toml").write_text(f'[agent]\nhost = "h"\nstate_dir = "{tmp_path}"\n')
    return path


def luks(*arguments: str | Path) -> int:
    return outcome(cli, "brickyard-agent", ["luks", *map(str, arguments)])


def test_keys_are_added_and_removed_and_the_header_is_kept_and_put_back(
    volume: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, config = volume.parent, ("--config", volume.parent / "agent.toml")
    content = volume.read_bytes()[-(1 << 20) :]
    assert luks("show", volume, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (len(told["slots"]), told["cipher"], told["key_bits"]) == (1, "aes-xts-plain64", 512)
    assert luks("backup", volume, folder / "kept") == 0
    assert (folder / "kept").stat().st_mode & 0o777 == 0o600
    assert luks("backup", volume, folder / "kept") == 2
    new = ("--new-key-file", folder / "new", "--new-key-type", "symmetric")
    assert luks("add-key", volume, "--key-file", folder / "old", *new, *config) == 0
    assert opens(volume, OLD)
    assert opens(volume, KEY.hex().encode())
    capsys.readouterr()
    before = volume.read_bytes()
    assert luks("remove-key", volume, "--key-file", folder / "old", "--dry-run", "--json", *config) == 0
    assert json.loads(capsys.readouterr().out)["would_lose_slots"] == [0]
    assert luks("restore", volume, folder / "kept", "--dry-run", "--json", *config) == 0
    assert json.loads(capsys.readouterr().out)["would_lose_slots"] == [0, 1]
    assert volume.read_bytes() == before
    assert luks("remove-key", volume, "--key-file", folder / "old", *config) == 0
    assert not opens(volume, OLD)
    last = ("--key-file", folder / "new", "--key-type", "symmetric")
    assert luks("remove-key", volume, *last, "--dry-run", *config) == 1, "the last one is refused in the plan, too"
    assert luks("remove-key", volume, *last, *config) == 1
    (folder / "third").write_bytes(b"third")
    third = ("--new-key-file", folder / "third")
    assert luks("add-key", volume, "--key-file", folder / "old", *third, *config) == 1, "a key that does not open it"
    assert luks("restore", volume, folder / "kept", *config) == 0
    assert opens(volume, OLD)
    assert not opens(volume, KEY.hex().encode())
    assert volume.read_bytes()[-(1 << 20) :] == content
    subprocess.run(["cryptsetup", "luksDump", volume], check=True, capture_output=True)


async def test_the_header_of_another_volume_is_not_put_back(volume: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, config = volume.parent, ("--config", volume.parent / "agent.toml")
    other, fmt = folder / "other", Format("luks1" if volume.stat().st_size < 4 << 20 else "luks2")
    other.touch()
    await make_blank(other, 1 << 20, fmt, Secret("passphrase", b"other"), iterations=1000)
    assert luks("backup", other, folder / "kept") == 0
    before = volume.read_bytes()
    assert luks("restore", volume, folder / "kept", "--dry-run", *config) == 1
    assert luks("restore", volume, folder / "kept", *config) == 1
    assert "another volume" in capsys.readouterr().err
    (folder / "half").write_bytes((folder / "kept").read_bytes()[:4096])
    assert luks("restore", volume, folder / "half", *config) == 1
    assert volume.read_bytes() == before
    assert luks("restore", volume, folder / "kept", "--force", *config) == 0
    assert opens(volume, b"other")
