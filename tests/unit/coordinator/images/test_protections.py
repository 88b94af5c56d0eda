"""Who may change which property: Glance's own files, by roles and by policy, and what is no such file."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.base.errors import BrickyardError
from coordinator.images.protections import Asking, Operation, Protections

BILLING = """
[^x_billing_.*]
create = admin
read = admin, billing, member
update = admin,Billing
delete = !
[^x_open$]
create = @
update = @
delete = @
[.*_plain]
update = member
"""


def read(path: Path, text: str, *, by_policy: bool = False) -> Protections:
    file = path / "protections.conf"
    file.write_text(text)
    return Protections.from_file(file, by_policy=by_policy, known=lambda rule: rule == "context_is_admin")


@pytest.mark.parametrize(
    ("roles", "operation", "name", "may"),
    [
        ({"member"}, "update", "x_billing_code_1", False),
        ({"member", "billing"}, "update", "x_billing_code_1", True),
        ({"billing"}, "create", "x_billing_code_1", False),
        ({"ADMIN"}, "create", "x_billing_code_1", True),
        ({"admin"}, "delete", "x_billing_code_1", False),
        (set(), "delete", "x_open", True),
        ({"member"}, "update", "is_plain", True),
        ({"member"}, "create", "is_plain", False),
        ({"admin"}, "update", "x_opener", False),
    ],
)
def test_roles(tmp_path: Path, roles: set[str], operation: Operation, name: str, may: bool) -> None:
    found = read(tmp_path, BILLING)
    asking = Asking(frozenset(roles), lambda rule: False)
    if may:
        found.check(asking, operation, name)
        return
    with pytest.raises(BrickyardError) as caught:
        found.check(asking, operation, name)
    assert (caught.value.code, caught.value.status) == ("images.property-protected", 403)


def test_policy_rules(tmp_path: Path) -> None:
    found = read(tmp_path, "[.*]\ncreate = context_is_admin\nupdate = context_is_admin\n", by_policy=True)
    found.check(Asking(frozenset(), lambda rule: rule == "context_is_admin"), "update", "any")
    with pytest.raises(BrickyardError):
        found.check(Asking(frozenset({"context_is_admin"}), lambda rule: False), "update", "any")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no section"),
        ("create = admin", "no section"),
        ("[(]\nupdate = admin\n", "regular expression"),
        ("[a]\nupdates = admin\n", "updates"),
        ("[a]\nupdate = @, admin\n", "alone"),
        ("[a]\nupdate = admin\n[a]\nupdate = member\n", "already exists"),
        ("[a]\nupdate\n", "parsing errors"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(BrickyardError, match=word) as caught:
        read(tmp_path, text)
    assert caught.value.code == "config.invalid"


def test_a_rule_that_policy_has_not_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BrickyardError, match="no policy rule nobody"):
        read(tmp_path, "[.*]\nupdate = nobody\n", by_policy=True)
    with pytest.raises(BrickyardError, match="No such file"):
        Protections.from_file(tmp_path / "none", by_policy=False, known=lambda rule: True)
