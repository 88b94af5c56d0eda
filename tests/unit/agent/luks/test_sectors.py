"""The bulk ciphers against OpenSSL's own modes, one sector at a time."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import CAST5
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES, SM4
from cryptography.hazmat.primitives.ciphers.modes import CBC, CTR, ECB, XTS, Mode
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.luks import native
from agent.luks.blocks import block
from agent.luks.errors import CipherRefused, NullCipher
from agent.luks.sectors import SECTOR_SIZES, check, sectors

MiB = 1 << 20


ALGORITHMS = {"aes": (AES, 16), "sm4": (SM4, 16), "cast5": (CAST5, 8)}


def mode(text: str, key: bytes, number: int) -> Mode:
    name, _, rest = text.partition("-")
    kind, _, told = rest.partition("-")
    algorithm, block = ALGORITHMS[name]
    if told == "plain64be":
        iv = number.to_bytes(block, "big")
    elif told == "benbi":
        iv = (number * 512 // block + 1).to_bytes(block, "big")
    else:
        iv = {"null": 0, "plain": number & 0xFFFFFFFF}.get(told, number).to_bytes(block, "little")
    if "essiv" in told:
        stretched = hashlib.new(told.partition(":")[2], key).digest()
        iv = Cipher(algorithm(stretched), ECB()).encryptor().update(iv)
    return ECB() if kind == "ecb" else {"xts": XTS, "cbc": CBC, "ctr": CTR}[kind](iv)


def expected(text: str, key: bytes, size: int, data: bytes, first: int) -> bytes:
    algorithm = ALGORITHMS[text.partition("-")[0]][0]
    parts = [
        Cipher(algorithm(key), mode(text, key, first + at // 512)).encryptor().update(data[at : at + size])
        for at in range(0, len(data), size)
    ]
    return b"".join(parts)


CASES = [("aes-xts-plain64", 32), ("aes-xts-plain64", 64), ("aes-xts-plain", 64), ("aes-cbc-essiv:sha256", 32),
         ("aes-cbc-plain64", 16), ("aes-cbc-plain", 24), ("aes-cbc-essiv:sha256", 16),
         ("aes-cbc-essiv:md5", 32), ("aes-cbc-plain64be", 32), ("aes-cbc-benbi", 24), ("aes-cbc-null", 16),
         ("aes-ctr-plain64", 32), ("aes-ctr-essiv:sha256", 32), ("aes-ecb", 32), ("aes-ecb-plain64", 16),
         ("aes-xts-essiv:sha256", 64), ("sm4-cbc-plain64", 16), ("cast5-cbc-plain64", 16),
         ("cast5-cbc-essiv:md5", 16), ("cast5-cbc-benbi", 16), ("cast5-ecb", 16)]  # fmt: skip


@pytest.fixture(params=["compiled", "portable"], autouse=True, scope="module")
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways are tested; where the compiled part was not built, it is told."""
    if request.param == "compiled" and native.native() is None:
        pytest.skip("the compiled part was not built, or this processor can not")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "portable":
            patch.setattr(native, "native", lambda: None)
        yield


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(CASES),
    st.sampled_from(SECTOR_SIZES),
    st.integers(1, 5),
    st.integers(0, (1 << 55) - 64) | st.integers((1 << 32) - 8, (1 << 32) + 8),
    st.integers(),
)
def test_sectors_are_as_openssl_makes_them(case, size, count, first, seed) -> None:
    text, key_bytes = case
    source = random.Random(seed)
    key, data = source.randbytes(key_bytes), source.randbytes(count * size)
    buffer = bytearray(data)
    cipher = sectors(text, key, size)
    cipher.encrypt(memoryview(buffer), first)
    assert bytes(buffer) == expected(text, key, size, data, first)
    cipher.decrypt(memoryview(buffer), first)
    assert bytes(buffer) == data


@pytest.mark.parametrize("size", SECTOR_SIZES)
@pytest.mark.parametrize(
    ("text", "key_bytes"), [("aes-xts-plain64", 64), ("aes-cbc-essiv:sha256", 32), ("aes-ctr-plain64", 16)]
)
def test_many_rounds(text: str, key_bytes: int, size: int) -> None:
    key, data, first = os.urandom(key_bytes), os.urandom(MiB + 4096), 12345
    buffer = bytearray(data)
    sectors(text, key, size).encrypt(memoryview(buffer), first)
    assert bytes(buffer) == expected(text, key, size, data, first)
    # A part of it alone, with its own number.
    part = bytearray(buffer[MiB : MiB + 4096])
    sectors(text, key, size).decrypt(memoryview(part), first + MiB // 512)
    assert bytes(part) == data[MiB : MiB + 4096]


@pytest.mark.parametrize("name", ["aes", "serpent", "twofish", "camellia"])
def test_xts_that_openssl_has_not(name: str) -> None:
    """AES-192 and other ciphers: the definition of XTS on each block."""
    key, data = os.urandom(48), os.urandom(512)
    buffer = bytearray(data)
    sectors(f"{name}-xts-plain64", key).encrypt(memoryview(buffer), 7)
    ecb = block(name, key[:24]).encryptor()
    tweak = block(name, key[24:]).encryptor().update((7).to_bytes(16, "little"))
    for at in range(0, 512, 16):
        mixed = bytes(a ^ b for a, b in zip(data[at : at + 16], tweak, strict=True))
        made = bytes(a ^ b for a, b in zip(ecb.update(mixed), tweak, strict=True))
        assert bytes(buffer[at : at + 16]) == made
        doubled = int.from_bytes(tweak, "little") << 1
        tweak = ((doubled & ((1 << 128) - 1)) ^ (0x87 if doubled >> 128 else 0)).to_bytes(16, "little")


def test_what_is_not_served_is_refused() -> None:
    for text in ("aes-lrw-benbi", "cast5-xts-plain64", "aes-cbc-essiv:sha1", "aes-xts-plain64:x", "aes-xts",
                 "cast5-cbc-essiv:sha256", "", "aes", "AES-xts-plain64", "xchacha12,aes-adiantum-plain64"):  # fmt: skip
        with pytest.raises(CipherRefused):
            check(text)
    for text in ("cipher_null-ecb", "null"):
        with pytest.raises(NullCipher):
            check(text)
    for text, key, size in (("aes-xts-plain64", 16, 512), ("aes-cbc-plain", 64, 512), ("aes-xts-plain64", 64, 8192)):
        with pytest.raises(CipherRefused):
            sectors(text, bytes(key), size)


def test_no_key_shows_in_a_repr() -> None:
    key = bytes(range(64))
    assert "\\x01" not in repr(sectors("aes-xts-plain64", key))


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=1, max_size=130), st.binary(max_size=64), st.integers(1, 40), st.integers(33, 64))
def test_compiled_pbkdf2_is_as_openssl_makes_it(key: bytes, salt: bytes, iterations: int, size: int) -> None:
    library = native.native()
    if library is None or not library.serves_pbkdf2("sha256", size):
        return
    assert library.pbkdf2(key, salt, iterations, size) == hashlib.pbkdf2_hmac("sha256", key, salt, iterations, size)
    assert not library.serves_pbkdf2("sha512", size)
    assert not library.serves_pbkdf2("sha256", 32)


def test_a_compiled_part_that_is_wrong_is_not_used() -> None:
    library = native.native()
    if library is None:
        return
    broken = native.Native.__new__(native.Native)
    vars(broken).update(vars(library))
    assert broken.is_right()
    broken._xts = lambda *_: 0
    assert not broken.is_right()
