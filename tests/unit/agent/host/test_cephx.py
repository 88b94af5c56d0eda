"""Keyrings of Ceph: users and their keys, in order, and nothing of what is no user's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.host import cephx

TEXT = """
# a comment
[client.first]
    key = AQFirst==
    caps mon = "profile rbd"
[mon.]
    key = AQMon==
[client.second]
key=AQSecond==
[client.bad name]
    key = AQBad==
[client.none]
"""


def test_users_in_their_order() -> None:
    assert list(cephx.keys(TEXT).items()) == [("first", b"AQFirst=="), ("second", b"AQSecond==")]


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert all(name and key for name, key in cephx.keys(text).items())
