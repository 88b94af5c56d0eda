from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from agent.base.config import load
from agent.privsep.account import Account
from agent.server.errors import AgentRunning
from agent.server.prepare import FolderUnusable, folders, lock_state, make_folders
from agent.server.settings import AgentSettings

NOBODY = Account("nobody", 65534, 65534)


def settings_at(folder: Path) -> AgentSettings:
    sets = [f"agent.state_dir={folder}/state", f"backends.one.path={folder}/one", f"images.store={folder}/images"]
    return load(AgentSettings, None, sets)


def test_what_is_missing_is_made_for_the_agent_alone(tmp_path: Path) -> None:
    settings = settings_at(tmp_path)
    make_folders(settings, None)
    make_folders(settings, None)
    for _, path in folders(settings):
        assert path.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_can_not_be_is_named_with_its_key(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("a file in the way")
    with pytest.raises(FolderUnusable, match=r"images\.store"):
        make_folders(settings_at(tmp_path), None)


def test_a_back_end_whose_folder_can_not_be_keeps_no_other_from_work(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("a file in the way")
    make_folders(settings_at(tmp_path), None)
    assert (tmp_path / "images").is_dir()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_hands_over_what_is_new_or_was_its_own(tmp_path: Path) -> None:
    settings = settings_at(tmp_path)
    settings.identity_dir.mkdir(parents=True)
    (settings.identity_dir / "key.pem").write_text("enrolled by root")
    trap = tmp_path / "shadow"
    trap.write_text("somebody else's")
    os.link(trap, settings.identity_dir / "trap")
    (settings.identity_dir / "link").symlink_to(trap)
    used = tmp_path / "one"
    used.mkdir()
    (used / "keep").write_text("not ours")
    make_folders(settings, NOBODY)
    assert settings.state_dir.stat().st_uid == NOBODY.uid
    assert (settings.identity_dir / "key.pem").stat().st_uid == NOBODY.uid
    assert trap.stat().st_uid == 0
    assert used.stat().st_uid == 0
    assert (tmp_path / "images").stat().st_uid == NOBODY.uid


def test_one_agent_per_state_directory(tmp_path: Path) -> None:
    held = lock_state(tmp_path)
    with pytest.raises(AgentRunning, match=str(os.getpid())):
        lock_state(tmp_path)
    os.close(held)
    os.close(lock_state(tmp_path))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("where", ["state/identity", "state", "one", "images"])
def test_root_gives_away_nothing_through_a_link_that_is_not_its_own(tmp_path: Path, where: str) -> None:
    """The state directory belongs to the agent's user, who may put links there before the next start as root."""
    settings = settings_at(tmp_path)
    make_folders(settings, NOBODY)
    precious = tmp_path / "precious"
    precious.mkdir()
    for full in (False, True):
        if full:
            (precious / "shadow").write_text("root's")
        place = tmp_path / where
        place.rename(tmp_path / f"away-{full}")
        place.symlink_to(precious)
        os.chown(place, NOBODY.uid, NOBODY.gid, follow_symlinks=False)
        # Of a back end it is said when that is opened; it keeps no other from work.
        refused = pytest.raises(FolderUnusable, match="link") if where != "one" else contextlib.nullcontext()
        with refused:
            make_folders(settings, NOBODY)
        assert {path.stat().st_uid for path in (precious, *precious.iterdir())} == {0}
        place.unlink()
        (tmp_path / f"away-{full}").rename(place)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_links_of_root_are_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "state").symlink_to("disk")
    make_folders(settings_at(tmp_path), NOBODY)
    assert (tmp_path / "disk").stat().st_uid == NOBODY.uid
    assert (tmp_path / "disk" / "identity").stat().st_uid == NOBODY.uid
