"""The block ciphers of our own against published answers, and against themselves."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.luks.blocks import block
from agent.luks.twofish import Twofish

# From the designers' submissions: a key, a block, what it becomes.
KNOWN = [
    ("twofish", "00" * 16, "00" * 16, "9f589f5cf6122c32b6bfec2f2ae8c35a"),
    ("twofish", "0123456789abcdeffedcba98765432100011223344556677", "00" * 16, "cfd1d2e5a9be9cdf501f13b892bd2248"),
    ("twofish", "0123456789abcdeffedcba987654321000112233445566778899aabbccddeeff", "00" * 16,
     "37527be0052334b89f0cfccae87cfa20"),
    ("serpent", "80" + "00" * 15, "00" * 16, "264e5481eff42a4606abda06c0bfda3d"),
    ("serpent", "80" + "00" * 23, "00" * 16, "9e274ead9b737bb21efcfca548602689"),
    ("serpent", "80" + "00" * 31, "00" * 16, "a223aa1288463c0e2be38ebd825616c0"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "key", "clear", "secret"), KNOWN)
def test_published_answers(name: str, key: str, clear: str, secret: str) -> None:
    cipher = block(name, bytes.fromhex(key))
    assert cipher.encryptor().update(bytes.fromhex(clear)).hex() == secret
    assert cipher.decryptor().update(bytes.fromhex(secret)).hex() == clear


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(("serpent", "twofish", "camellia")), st.sampled_from((16, 24, 32)), st.integers(1, 40))
def test_each_block_by_itself_and_back(name: str, key_bytes: int, count: int) -> None:
    cipher, data = block(name, os.urandom(key_bytes)), os.urandom(16 * count)
    made = cipher.encryptor().update(data)
    assert made == b"".join(cipher.encryptor().update(data[at : at + 16]) for at in range(0, len(data), 16))
    assert cipher.decryptor().update(made) == data


@pytest.mark.parametrize("name", ["serpent", "twofish"])
def test_more_blocks_than_are_worked_on_at_once(name: str) -> None:
    cipher, data = block(name, bytes(range(32))), os.urandom(16 * 20_000)
    made = cipher.encryptor().update(data)
    assert cipher.encryptor().update(data[-160:]) == made[-160:]
    assert cipher.decryptor().update(made) == data


def test_words_in_the_other_order_of_bytes_are_the_same_words() -> None:
    """What numpy works out is big-endian on IBM Z."""
    turn = Twofish(bytes(range(16))).encryptor()
    words = np.arange(1 << 24, (1 << 24) + 64, dtype="<u4")
    assert turn._g(words.astype(">u4"), 1).tolist() == turn._g(words, 1).tolist()
