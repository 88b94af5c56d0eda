"""`brickyard-agent` on a real journal and real folders, with no agent running."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.base.terminal.entry import outcome
from agent.cli.main import cli
from agent.diagnostics.place import Place
from tests.unit.agent.diagnostics import support


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = support.made(tmp_path)
    (tmp_path / "agent.toml").write_text(
        f'[agent]\nhost = "host-t"\nstate_dir = "{place.state_dir}"\n[images]\nstore = "{place.images_dir}"\n'
        f'[privsep]\nlimits_file = "{place.limits_file}"\n[backends.files]\npath = "{place.backends["files"]}"\n'
    )
    path = place.backends["files"] / "volumes" / support.VOLUME
    path.touch()
    os.truncate(path, 1 << 20)
    support.in_journal(place, support.job(updated_at=time.time()), support.attachment(path))
    return place


def agent(place: Place, *arguments: str) -> int:
    return outcome(cli, "brickyard-agent", [*arguments, "--config", str(place.state_dir.parent / "agent.toml")])


def test_jobs_in_every_form(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent(place, "jobs", "--json") == 0
    (job,) = json.loads(capsys.readouterr().out)
    assert (job["key"], job["state"], job["args"]["volume_id"]) == ("op/create/1", "running", support.VOLUME)
    assert agent(place, "jobs", "-o", "value", "-c", "key") == 0
    assert capsys.readouterr().out == "op/create/1\n"
    assert agent(place, "jobs") == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["KEY", "KIND", "STATE", "DONE", "AGE", "ERROR"]


def test_attachments_say_what_the_kernel_says(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent(place, "attachments", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["attachment_id"], row["state"]) == (support.ATTACHMENT, "missing")


def test_explain_as_tree_and_as_json(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent(place, "explain", support.VOLUME) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"volume {support.VOLUME}  (on host-t)"
    assert lines[1].startswith(f"  file {place.backends['files']}/volumes/{support.VOLUME}  (back end files, 1.0 MiB")
    assert f"  attachment {support.ATTACHMENT}  (missing, rw, /dev/loop999)" in lines
    assert "  job op/create/1  (volume.create, running)" in lines
    assert agent(place, "explain", support.VOLUME, "--json") == 0
    assert json.loads(capsys.readouterr().out)["kind"] == "volume"


def test_explain_of_what_is_not_here(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent(place, "explain", "0" * 8 + support.VOLUME[8:], "--json") == 4
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "agent.volume-unknown"


@pytest.fixture
def loop(place: Place) -> Iterator[str]:
    """The volume bound to a loop device, and a partition table's worth of nothing above it."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists() or shutil.which("losetup") is None:
        pytest.skip("needs root and loop devices")
    path = place.backends["files"] / "volumes" / support.VOLUME
    done = subprocess.run(["losetup", "--find", "--show", str(path)], capture_output=True, text=True, check=True)
    device = done.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.mark.root
def test_explain_and_attachments_follow_the_loop_device(
    place: Place, loop: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = place.backends["files"] / "volumes" / support.VOLUME
    support.in_journal(place, support.attachment(path, loop))
    assert agent(place, "explain", support.VOLUME) == 0
    assert f"    device {loop}  (1.0 MiB)" in capsys.readouterr().out.splitlines()
    assert agent(place, "attachments", "-o", "value", "-c", "state") == 0
    assert capsys.readouterr().out == "attached\n"


def test_doctor_ends_with_one_when_something_is_bad(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent(place, "doctor", "--check", "identity", "--json") == 1
    (finding,) = json.loads(capsys.readouterr().out)
    assert finding == {
        "check": "identity",
        "state": "bad",
        "message": "This host is not enrolled.",
        "remedy": "Enrol this host: brickyard host token, then here: brickyard-agent join TOKEN",
    }
    assert agent(place, "doctor", "--check", "journal") == 0
    assert (
        capsys.readouterr().out
        == "CHECK    STATE  MESSAGE                REMEDY\njournal  ok     The journal is whole.\n"
    )
    assert agent(place, "doctor", "--check", "nonsense") == 2


def test_support_bundle_names_its_file(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent(place, "support-bundle", str(tmp_path / "b.tar.gz"), "-o", "value") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'b.tar.gz'}\n"
    assert agent(place, "support-bundle", str(tmp_path / "b.tar.gz"), "--json") == 5


def test_the_connector_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(cli, "brickyard-agent", ["connector", "--ip", "10.0.0.5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["ip"], told["os_type"]) == ("10.0.0.5", "linux")


def test_facts_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(cli, "brickyard-agent", ["facts", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["arch"] == os.uname().machine


def test_config_check_names_file_line_and_key(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent(place, "config", "check") == 0
    assert "no problem found" in capsys.readouterr().out
    with (tmp_path / "agent.toml").open("a") as file:
        file.write("\n[log]\nlevl = 1\n")
    assert agent(place, "config", "check") == 2
    assert f"{tmp_path / 'agent.toml'}:" in capsys.readouterr().err


def test_config_reference_is_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(cli, "brickyard-agent", ["config", "reference"]) == 0
    assert "| `agent.state_dir` |" in capsys.readouterr().out


def test_join_wants_a_token_or_a_bundle(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert agent(place, "join") == 2
    assert agent(place, "join", "nonsense") == 2
    assert "byj1." in capsys.readouterr().err
