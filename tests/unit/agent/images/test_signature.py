"""Signatures over bytes: every kind of key, every digest, and what is refused by which rule."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from agent.base.errors import BrickyardError
from agent.images.checksum import verify
from agent.images.signature import verifier
from agent.wire.jobs import Signature
from tests.support.signing import HASHES, Holder, holder

DATA = bytes(range(256)) * 40_000


@pytest.fixture
def fd() -> Iterator[int]:
    made = os.memfd_create("image")
    os.write(made, DATA)
    yield made
    os.close(made)


@pytest.fixture(scope="module")
def signer() -> Holder:
    return holder("signer", key=rsa.generate_private_key(65537, 2048))


def told(one: Holder, hash_method: str = "SHA-256", data: bytes = DATA) -> Signature:
    found = one.properties(data, "c", hash_method)
    given = {
        "value": found["img_signature"], "hash_method": hash_method, "key_type": found["img_signature_key_type"],
        "certificate": one.pem.decode(),
    }  # fmt: skip
    return Signature(**given)


@pytest.mark.parametrize("hash_method", HASHES)
async def test_every_digest(fd: int, signer: Holder, hash_method: str) -> None:
    await verify(fd, None, verifier(told(signer, hash_method)))


@pytest.mark.parametrize(
    "make", [lambda: ec.generate_private_key(ec.SECP521R1()), lambda: ec.generate_private_key(ec.SECP384R1()),
             lambda: dsa.generate_private_key(2048)],
)  # fmt: skip
async def test_every_key(fd: int, make: Any) -> None:
    one = holder("signer", key=make())
    await verify(fd, None, verifier(told(one)))
    with pytest.raises(BrickyardError) as caught:
        await verify(fd, None, verifier(told(one, data=DATA + b"x")))
    assert caught.value.code == "image.signature"


async def test_one_flipped_byte_is_enough_and_the_checksum_is_looked_at_in_the_same_reading(
    fd: int, signer: Holder
) -> None:
    signed = verifier(told(signer))
    os.pwrite(fd, b"!", 4_000_001)
    with pytest.raises(BrickyardError) as caught:
        await verify(fd, None, signed)
    assert caught.value.code == "image.signature"
    with pytest.raises(BrickyardError) as caught:
        await verify(fd, ("md5", "0" * 32), signed)
    assert caught.value.code == "image.checksum"


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ({"hash_method": "MD5"}, "hash method"),
        ({"hash_method": "SHA-1"}, "hash method"),
        ({"key_type": "RSA"}, "key type"),
        ({"key_type": "DSA"}, "not one for DSA"),
        ({"key_type": "ECC_SECP384R1"}, "not one for ECC_SECP384R1"),
        ({"value": "no base64!"}, "base64"),
        ({"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "certificate"),
    ],
)
def test_what_could_never_fit_is_refused_before_the_bytes_are_there(
    signer: Holder, more: dict[str, str], rule: str
) -> None:
    with pytest.raises(BrickyardError, match=rule) as caught:
        verifier(told(signer).model_copy(update=more))
    assert caught.value.code == "image.signature-unusable"


async def test_a_signature_of_another_digest_does_not_fit(fd: int, signer: Holder) -> None:
    with pytest.raises(BrickyardError) as caught:
        await verify(fd, None, verifier(told(signer, "SHA-512").model_copy(update={"hash_method": "SHA-256"})))
    assert caught.value.code == "image.signature"
