"""Choosing and checking the ordinary user."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from agent.privsep import account
from agent.privsep.errors import AccountInvalid

NOT_THERE = "brickyard-no-such-user"


def test_dev_falls_back_to_nobody() -> None:
    assert account.choose(NOT_THERE, dev=True).uid == pwd.getpwnam("nobody").pw_uid


def test_a_missing_user_is_an_error_elsewhere() -> None:
    with pytest.raises(AccountInvalid, match="no such user"):
        account.choose(NOT_THERE)


def test_root_is_no_ordinary_user() -> None:
    with pytest.raises(AccountInvalid, match="it is root"):
        account.choose("root")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="changing the user needs root")
def test_an_unreadable_state_directory_is_named(tmp_path: Path) -> None:
    nobody = account.choose("nobody")
    tmp_path.chmod(0o700)
    with pytest.raises(AccountInvalid, match=str(tmp_path)):
        account.check(nobody, tmp_path)
    assert not account.reads_all(nobody, [tmp_path])
    assert account.reads_all(nobody, [Path("/usr")])
