from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.redact import HIDDEN, is_secret_name, redacted, redacted_text


@pytest.mark.parametrize(
    "name",
    "password OS_PASSWORD auth_token X-Auth-Token secrets keyMaterial privateKey value_b64 password_hash "
    "Authorization volume_encryption_key chap_auth Set-Cookie".split(),
)
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["key", "token_id", "key_id", "encryption_key_id", "job", "secret_type", "compass", ""]
)
def test_harmless_names(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "text",
    [
        "password=S3CRET",
        'x "passphrase": "S3CRET q"',
        "OS_PASSWORD='S3CRET'",
        "Authorization: Basic S3CRETS3CRET",
        "got Bearer S3CRETS3CRET",
        "amqp://u:S3CRET@h",
        "X-Subject-Token: S3CRET",
        "admin_token = S3CRET",
        "-----BEGIN PRIVATE KEY-----\nS3CRET\n-----END PRIVATE KEY-----",
        "-----BEGIN EC PRIVATE KEY-----\nS3CRET",
    ],
)
def test_texts(text: str) -> None:
    assert "S3CRET" not in redacted_text(text)
    assert HIDDEN in redacted_text(text)


def test_plain_text_is_left_alone() -> None:
    text = "volume 7d1b-… is available at https://host:8776/v3, 5 passes"
    assert redacted_text(text) == text


def test_numbers_are_hidden_by_name_and_flags_are_not() -> None:
    assert redacted("password", 1234) == HIDDEN
    assert redacted("secret", True) is True
    assert redacted("token", None) is None


@given(st.recursive(st.text() | st.integers() | st.binary(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_any_value_can_be_redacted(value: object) -> None:
    redacted("field", value)


def test_a_deep_value_ends() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert HIDDEN in str(redacted("x", loop))
