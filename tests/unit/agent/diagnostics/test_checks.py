"""Each check: what it says of a sound host, and of one that is not."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agent.diagnostics.finding import Finding
from agent.diagnostics.place import Place
from agent.diagnostics.table import CHECKS, examine
from tests.unit.agent.diagnostics import support

HOUR = 3600.0


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return support.made(tmp_path)


def found(place: Place, name: str) -> list[Finding]:
    return list(examine(place, [name]))


def states(place: Place, name: str) -> set[str]:
    return {finding.state for finding in found(place, name)}


def test_every_check_asks_one_question_and_gives_a_remedy(place: Place) -> None:
    findings = list(examine(place))
    assert {finding.check for finding in findings} == set(CHECKS)
    assert not [f for f in findings if f.state in {"warning", "bad"} and not f.remedy]
    assert not [f for f in findings if f.state == "ok" and f.remedy]


def test_every_module_stands_in_the_table() -> None:
    folder = Path(support.__file__).parents[4] / "agent" / "diagnostics" / "checks"
    assert {path.stem for path in folder.glob("*.py")} - {"__init__"} == set(CHECKS)


def test_an_empty_host_is_told_how_to_begin(tmp_path: Path) -> None:
    nowhere = Place("h", tmp_path / "none", tmp_path / "none" / "spool", "brickyard", tmp_path / "limits.toml")
    findings = list(examine(nowhere))
    assert "brickyard-agent join" in next(f.remedy for f in findings if f.check == "agent")
    assert all(f.message for f in findings)


def test_the_agent_is_seen_by_its_lock(place: Place) -> None:
    import fcntl

    assert states(place, "agent") == {"warning"}
    with (place.state_dir / "agent.lock").open("w+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        assert found(place, "agent")[0].message == "The agent runs as process 4711."


@pytest.mark.parametrize(
    ("begins", "ends", "state"), [(-1, 29, "ok"), (-25, 5, "warning"), (-40, -1, "bad"), (1, 30, "bad")]
)
def test_identity_tells_the_days_left(place: Place, begins: float, ends: float, state: str) -> None:
    support.certificate(place, begins, ends)
    assert states(place, "identity") == {state}


def test_identity_that_is_no_certificate(place: Place) -> None:
    (place.identity_dir / "certificate.pem").write_text("nonsense")
    assert states(place, "identity") == {"bad"}


def test_jobs_that_are_stuck(place: Place) -> None:
    assert states(place, "jobs") == {"skipped"}
    support.in_journal(place, support.job(updated_at=time.time()))
    assert states(place, "jobs") == {"ok"}
    support.in_journal(place, support.job("op/b/1", state="needs-secret", updated_at=time.time() - 90))
    assert "waits for its secrets" in found(place, "jobs")[0].message
    support.in_journal(place, support.job("op/c/1", updated_at=time.time() - 2 * HOUR))
    assert len(found(place, "jobs")) == 2


def test_the_journal_whole_and_damaged(place: Place) -> None:
    support.in_journal(place, support.job())
    assert states(place, "journal") == {"ok"}
    with place.journal_file.open("r+b") as file:
        file.seek(0)
        file.write(b"not a database at all")
    assert states(place, "journal") == {"bad"}


def test_reading_the_journal_changes_nothing(place: Place) -> None:
    support.in_journal(place, support.job())
    before = place.journal_file.read_bytes()
    found(place, "jobs")
    assert place.journal_file.read_bytes() == before


def test_attachments_that_are_not_as_they_should_be(place: Place) -> None:
    path = place.backends["files"] / "volumes" / support.VOLUME
    support.in_journal(place, support.attachment(path))
    assert "is missing" in found(place, "attachments")[0].message
    support.in_journal(place, support.attachment(path, wanted=False))
    assert "is stale" in found(place, "attachments")[0].message


def test_leftovers_are_old_files_that_no_job_needs(place: Place) -> None:
    partial = place.backends["files"] / "partial"
    for name, age in (("young", 0.0), (support.VOLUME, 2 * HOUR), ("old", 2 * HOUR)):
        (partial / name).write_bytes(b"x")
        os.utime(partial / name, (time.time() - age,) * 2)
    support.in_journal(place, support.job(updated_at=time.time()))
    assert [finding.message.split()[0] for finding in found(place, "leftovers")] == [str(partial / "old")]


def test_limits_missing_wrong_and_right(place: Place, tmp_path: Path) -> None:
    assert states(place, "limits") == {"warning"}
    place.limits_file.write_text("[block]\nroots = 7\n")
    assert states(place, "limits") == {"bad"}
    if os.geteuid() != 0:
        pytest.skip("the limits file must belong to root")
    place.limits_file.write_text(f'[block]\nroots = ["{tmp_path / "elsewhere"}"]\n')
    assert states(place, "limits") == {"bad"}
    place.limits_file.write_text(f'[block]\nroots = ["{tmp_path}"]\n')
    assert states(place, "limits") == {"ok"}


def test_rights_of_folders_and_of_the_key(place: Place) -> None:
    assert states(place, "rights") == {"ok"}
    place.backends["files"].chmod(0o777)
    (place.identity_dir / "key.pem").write_text("x")
    (place.identity_dir / "key.pem").chmod(0o644)
    assert states(place, "rights") == {"warning", "bad"}


def test_kernel_and_tools_read_this_host_or_another_root(place: Place, tmp_path: Path) -> None:
    assert states(replace(place, root=tmp_path), "kernel") == {"bad", "warning"}
    assert states(place, "tools") <= {"ok", "bad"}


def test_space_names_each_file_system_once(place: Place) -> None:
    assert len([f for f in found(place, "space") if "free (" in f.message]) == 1


def on_lvm(place: Place, tmp_path: Path, limits: str) -> Place:
    file = tmp_path / "limits.toml"
    file.write_text(limits)
    os.chown(file, 0, 0) if os.geteuid() == 0 else None
    return replace(place, groups={"fast": ("vg0", "pool")}, limits_file=file, root=tmp_path / "root")


def device(root: Path, name: str, uuid: str, title: str, *, below: str = "", suspended: bool = False) -> None:
    folder = root / "sys" / "block" / name
    (folder / "dm").mkdir(parents=True)
    (folder / "slaves").mkdir()
    for key, value in {"uuid": uuid, "name": title, "suspended": str(int(suspended))}.items():
        (folder / "dm" / key).write_text(value + "\n")
    (folder / "size").write_text("2048\n")
    if below:
        (folder / "slaves" / below).touch()


def test_a_host_without_lvm_is_not_asked_for_it(place: Place) -> None:
    assert states(place, "lvm") == {"skipped"}


@pytest.mark.skipif(os.geteuid() != 0, reason="the limits file must be root's")
def test_lvm_that_is_not_set_up_is_told_piece_by_piece(place: Place, tmp_path: Path) -> None:
    told = " ".join(one.message for one in found(on_lvm(place, tmp_path, ""), "lvm"))
    for words in ("Device-mapper is not in the kernel", "udev rules of Brickyard are missing", "group vg0 of the back"):
        assert words in told


@pytest.mark.skipif(os.geteuid() != 0, reason="the limits file must be root's")
def test_foreign_activation_and_suspended_devices_are_seen(place: Place, tmp_path: Path) -> None:
    host = on_lvm(place, tmp_path, '[lvm]\ngroups = ["vg0"]\n')
    device(host.root, "dm-1", "BRICKYARD-1", "brickyard-lv-1")
    device(host.root, "dm-2", "LVM-guest", "guest-root", below="dm-1")
    device(host.root, "dm-3", "LVM-ours", "vg0-byv--1", suspended=True)
    told = {one.message.split()[0]: one.state for one in found(host, "lvm") if one.message.startswith("/dev")}
    assert told == {"/dev/mapper/guest-root": "bad", "/dev/mapper/vg0-byv--1": "warning"}


def test_a_share_that_is_not_mounted_is_told(place: Place, tmp_path: Path) -> None:
    assert states(place, "shares") == {"skipped"}
    away = replace(place, shares={"filer": ("nfs", tmp_path / "x", "server:/export")})
    (told,) = found(away, "shares")
    assert told.state == "bad"
    assert "server:/export" in told.message
