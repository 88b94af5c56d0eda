"""The privileged side's checks against hostile arguments: nothing but a VerbRefused comes out, and nothing opens."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.privsep import beneath, checks, limits
from agent.privsep.errors import VerbRefused

ID = "0b7e7f0a-3f0e-4b53-9c1e-2b8f7b1d7a11"
nasty_text = st.one_of(
    st.text(),
    st.sampled_from(["..", ".", "", "/", "//", "-", "--help", "\0", "/etc/shadow", f"../{ID}", f"-{ID}", f"{ID}\n"]),
    st.builds(lambda *parts: "/".join(parts), st.text(), st.sampled_from(["..", ".", "", ID, "-x", "a\0b"]), st.text()),
)
nasty = st.one_of(
    nasty_text,
    st.integers(),
    st.binary(),
    st.none(),
    st.floats(),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.text()),
)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "root"
    (folder / "volumes").mkdir(parents=True)
    before = limits.current()
    limits.use(limits.Limits((str(folder),)))
    yield folder
    limits.use(before)


def _volume(folder: Path, size: int = 512) -> Path:
    path = folder / "volumes" / str(uuid.uuid4())
    path.write_bytes(bytes(size))
    return path


def test_a_volume_opens(root: Path) -> None:
    fd = checks.open_volume(str(_volume(root)), False)
    assert os.fstat(fd).st_size == 512
    os.close(fd)


def test_a_link_at_any_place_is_refused(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    target = outside / ID
    target.write_bytes(bytes(512))
    (root / "volumes" / ID).symlink_to(target)
    (root / "lead").symlink_to(outside)
    for path in (root / "volumes" / ID, root / "lead" / ID):
        with pytest.raises(VerbRefused, match="can not be opened"):
            checks.open_volume(str(path), True)


def test_a_root_that_became_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    path = _volume(root)
    root.rename(tmp_path / "moved")
    root.symlink_to(tmp_path / "moved")
    with pytest.raises(VerbRefused, match="can not be opened"):
        checks.open_volume(str(path), True)


def test_what_is_no_plain_file_is_refused(root: Path) -> None:
    (root / "volumes" / ID).mkdir()
    with pytest.raises(VerbRefused):
        checks.open_volume(str(root / "volumes" / ID), True)
    fifo = root / "volumes" / str(uuid.uuid4())
    os.mkfifo(fifo)
    with pytest.raises(VerbRefused, match="regular"):
        checks.open_volume(str(fifo), True)


def test_a_second_name_and_an_odd_size_are_refused(root: Path) -> None:
    path = _volume(root)
    os.link(path, root / "second")
    with pytest.raises(VerbRefused, match="more than one name"):
        checks.open_volume(str(path), True)
    for size in (0, 1, 513):
        with pytest.raises(VerbRefused, match="512"):
            checks.open_volume(str(_volume(root, size)), True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_the_file_of_another_user_is_refused(root: Path) -> None:
    path = _volume(root)
    os.chown(path, 65534, 65534)
    with pytest.raises(VerbRefused, match="another user"):
        checks.open_volume(str(path), True)


@given(nasty)
def test_no_path_from_outside_opens(value: Any) -> None:
    with pytest.raises(VerbRefused):
        checks.open_volume(value, True)


@given(nasty)
def test_identifiers_and_numbers(value: Any) -> None:
    for check in (lambda: checks.uuid(value, "x"), lambda: checks.flag(value, "x")):
        with pytest.raises(VerbRefused):
            check()
    with contextlib.suppress(VerbRefused):
        assert 0 <= checks.number(value, "x") < 1 << 20


@given(st.one_of(st.text(), st.integers(), st.none(), st.binary(min_size=1 << 17, max_size=1 << 17), st.just(b"")))
def test_a_refused_secret_is_not_in_the_error(value: Any) -> None:
    with pytest.raises(VerbRefused) as caught:
        checks.secret(value)
    assert str(caught.value) == "Refused by the privileged side: the secret is not 1 to 65536 bytes."


def test_beneath_refuses_to_leave(tmp_path: Path) -> None:
    fd = beneath.open_folder(str(tmp_path.resolve()))
    try:
        for path in ("../x", "/etc/passwd", "a/../../x"):
            with pytest.raises(OSError, match=r".*"):
                beneath.open_beneath(fd, path, os.O_RDONLY)
    finally:
        os.close(fd)
