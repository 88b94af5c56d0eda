"""Join tokens: what is written is read, damage is named, the secret is never shown."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from agent.wire.errors import TokenInvalid
from agent.wire.joining import EnrolRequest, HostBundle, JoinToken

SECRET = "s3cret-" + "x" * 36


def token(**changes: object) -> JoinToken:
    values = {"a": "10.0.0.1", "p": 8777, "f": "ab" * 32, "i": "01" * 8, "s": SECRET, **changes}
    return JoinToken.model_validate(values)


@given(st.text(min_size=1, max_size=255), st.integers(1, 65535), st.binary(min_size=32, max_size=32))
def test_a_token_survives_the_way(address: str, port: int, digest: bytes) -> None:
    made = token(a=address, p=port, f=digest.hex())
    read = JoinToken.parse(f"  {made.line()}\n")
    assert read == made
    assert read.secret.get_secret_value() == SECRET


@given(st.text(max_size=300) | st.binary(max_size=200).map(lambda raw: "byj1." + base64.b64encode(raw).decode()))
def test_anything_else_is_refused_as_such(text: str) -> None:
    with pytest.raises(TokenInvalid):
        JoinToken.parse(text)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("p", 0, "port"),
        ("f", "xyz", "fingerprint"),
        ("s", "short", "secret"),
        ("i", "../..", "id"),
        ("a", "", "address"),
    ],
)
def test_what_is_damaged_is_named_and_the_secret_is_not_told(field: str, value: object, named: str) -> None:
    plain = {"a": "h", "p": 1, "f": "ab" * 32, "i": "01" * 8, "s": SECRET, field: value}
    line = "byj1." + base64.urlsafe_b64encode(json.dumps(plain).encode()).decode()
    with pytest.raises(TokenInvalid, match=named) as caught:
        JoinToken.parse(line)
    assert SECRET not in str(caught.value) + str(caught.value.to_body())


def test_a_cut_token_is_refused() -> None:
    line = token().line()
    for end in range(len(line) - 1):
        with pytest.raises(TokenInvalid):
            JoinToken.parse(line[:end])


def test_secrets_are_not_in_repr() -> None:
    request = EnrolRequest(
        token_id="01" * 8,
        secret=SecretStr(SECRET),
        name="host-a",
        csr="-----BEGIN CERTIFICATE REQUEST-----\n",
        address=None,
        control_port=1,
        data_port=2,
    )
    bundle = HostBundle(name="a", key=SecretStr(SECRET), certificate="", ca="")
    for thing in (token(), request, bundle):
        assert SECRET not in repr(thing)
    assert request.body()["secret"] == SECRET
    assert HostBundle.model_validate_json(bundle.text()) == bundle
