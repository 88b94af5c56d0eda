"""What is read from certificates, and what is not believed."""

from __future__ import annotations

import datetime
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.wire import pins
from coordinator.enrolment.ca import Authority, new_authority, new_key


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(new_authority())


def leaf_of(authority: Authority) -> x509.Certificate:
    return pins.chain(authority.issue("host:a", new_key().public_key()).chain.encode())[0]


def test_a_chain_is_its_certificates_in_order(authority: Authority) -> None:
    issued = authority.issue("host:a", new_key().public_key())
    leaf, ca = pins.chain(b"some words\n" + issued.chain.encode())
    assert (f"{leaf.serial_number:x}", ca.subject) == (issued.serial, leaf.issuer)
    assert pins.validity(leaf) == tuple(
        each.replace(tzinfo=datetime.UTC) for each in (issued.not_before, issued.not_after)
    )


def test_what_is_no_chain() -> None:
    with pytest.raises(ValueError, match="no certificate"):
        pins.chain(b"some words\n")
    with pytest.raises(ValueError, match=r"(?i)pem|parse|load|certificate"):
        pins.chain(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def test_only_the_authority_that_signed(authority: Authority) -> None:
    leaf, [ca] = leaf_of(authority), pins.chain(authority.ca_pem.encode())
    assert pins.is_signed_by(leaf, ca)
    assert not pins.is_signed_by(leaf, pins.chain(new_authority()[1])[0])
    assert not pins.is_signed_by(ca, leaf)


def test_a_changed_certificate_is_not_signed(authority: Authority) -> None:
    der = bytearray(leaf_of(authority).public_bytes(Encoding.DER))
    der[-1] ^= 1  # in the signature
    [ca] = pins.chain(authority.ca_pem.encode())
    assert not pins.is_signed_by(x509.load_der_x509_certificate(bytes(der)), ca)


def test_digests_are_equal_for_equal_keys_alone(authority: Authority) -> None:
    leaf, other = leaf_of(authority), leaf_of(authority)
    plain = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert pins.spki_digest(leaf.public_bytes(Encoding.DER)) == hashlib.sha256(plain).hexdigest()
    assert pins.key_digest(leaf.public_key()) != pins.key_digest(other.public_key())
