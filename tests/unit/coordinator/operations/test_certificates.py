"""Which certificates follow from trusted ones."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, rsa

from coordinator.operations.certificates import is_current, pem, read, untrusted
from tests.support.signing import Holder, holder


def why(leaf: Holder, *trusted: Holder) -> str | None:
    return untrusted(leaf.certificate, [one.certificate for one in trusted])


def test_a_chain_up_to_a_root_is_trusted_when_all_of_it_is() -> None:
    root = holder("root", ca=True)
    middle = holder("middle", root, ca=True)
    leaf = holder("leaf", middle)
    assert why(leaf, middle, root) is None
    assert why(leaf, root, middle) is None
    assert "has issued it" in str(why(leaf, root))
    assert "the one that issued it" in str(why(leaf, middle))
    assert why(leaf) is not None
    assert why(leaf, holder("root", ca=True), middle) is not None, "another root of the same name"


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), dsa.generate_private_key(2048)])
def test_roots_of_other_kinds_of_keys(key: object) -> None:
    root = holder("root", ca=True, key=key)
    assert why(holder("leaf", root), root) is None
    assert why(holder("leaf", root), holder("root", ca=True, key=key, days=(1, 2))) is not None


def test_who_may_not_sign_trusts_nobody() -> None:
    plain = holder("plain")
    assert why(holder("leaf", plain), plain) is not None
    assert why(plain, plain) is not None
    own = holder("own", ca=True)
    assert why(own, own) is None


def test_dates_are_kept() -> None:
    gone = holder("gone", ca=True, days=(-9, -1))
    assert not is_current(gone.certificate)
    assert not is_current(holder("later", days=(1, 2)).certificate)
    assert why(holder("leaf", gone), gone) is not None


def test_lengths_of_chains_are_kept() -> None:
    short = holder("short", ca=True, path_length=0)
    assert why(holder("leaf", short), short) is None
    middle = holder("middle", short, ca=True)
    assert "longer" in str(why(holder("leaf", middle), middle, short))


def test_read_takes_both_forms_and_nothing_else() -> None:
    one = holder("one")
    assert read(one.pem) == read(one.der) == one.certificate
    assert read(pem(one.certificate).encode()) == one.certificate
    assert read(b"") is None
    assert read(b"\x30\x03abc") is None
    assert read(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n") is None
