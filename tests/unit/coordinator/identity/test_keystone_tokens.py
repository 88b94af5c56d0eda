"""Keystone's tokens as principals, and the settings; a real Keystone is asked in tests/integration/test_keystone.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from coordinator.identity.errors import KeystoneAway, TokenRefused, Unauthorized
from coordinator.identity.keystone import KeystoneAuthenticator, principal
from coordinator.identity.service_user import expiry
from coordinator.identity.settings import IdentitySettings, KeystoneSettings

PASSWORD = "pass word"
DOMAIN = {"id": "default", "name": "Default"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def token(**more: Any) -> dict[str, Any]:
    return {
        "user": {"id": "u1", "name": "ann", "domain": DOMAIN},
        "audit_ids": ["a1"],
        "roles": [{"id": "r", "name": "member"}],
        **more,
    }


def test_a_token_in_a_project() -> None:
    found = principal(token(project={"id": "p1", "name": "one", "domain": DOMAIN}))
    assert (found.user_id, found.project_id, found.roles) == ("u1", "p1", frozenset({"member"}))
    assert (found.system, found.token_id, found.project_domain_id) == (False, "a1", "default")


def test_roles_are_those_that_keystone_names() -> None:
    assert principal(token(roles=[{"name": "admin"}])).roles == frozenset({"admin"})
    assert principal(token(roles=None)).roles == frozenset()


def test_other_scopes() -> None:
    assert principal(token(system={"all": True})).system
    assert principal(token(domain=DOMAIN)).domain_id == "default"
    assert principal(token()).project_id is None


@given(JSON)
def test_no_user_no_principal(user: Any) -> None:
    if not (isinstance(user, dict) and user.get("id")):
        with pytest.raises(TokenRefused):
            principal({"user": user})


def test_times() -> None:
    assert expiry({"expires_at": "2026-11-25T17:49:04.000000Z"}) == 1795628944.0
    assert expiry({"expires_at": "soon"}) == 0.0
    assert expiry({}) == 0.0


async def test_nobody_is_let_in_without_an_answer() -> None:
    found = KeystoneAuthenticator(KeystoneSettings(auth_url="http://127.0.0.1:9", password=SecretStr(PASSWORD)))
    assert found.challenge("http://here") == 'Keystone uri="http://127.0.0.1:9"'
    with pytest.raises(KeystoneAway):
        await found.authenticate({"X-Auth-Token": "gAAAA"}, None, None)
    await found.close()


@pytest.mark.parametrize("bad", ["", "a b\n", "\u00e4", "x" * 20000])
async def test_what_can_be_no_token_is_not_asked_for(bad: str) -> None:
    found = KeystoneAuthenticator(KeystoneSettings(auth_url="http://127.0.0.1:9", password=SecretStr(PASSWORD)))
    with pytest.raises(Unauthorized, match=r"authentication|not valid"):
        await found.authenticate({"X-Auth-Token": bad}, None, None)
    await found.close()


def test_the_settings_are_checked_at_start(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="needs the table"):
        IdentitySettings(strategy="keystone")
    with pytest.raises(ValidationError):
        KeystoneSettings(auth_url="keystone:5000")
    section = KeystoneSettings(auth_url="http://k", password=SecretStr(PASSWORD))
    assert PASSWORD not in repr(section)
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o400)
    assert KeystoneSettings(auth_url="http://k", password_file=secret).secret() == PASSWORD
