"""What root shows as a file: only upon an empty file of an image's name, in a folder that the limits name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.base.ids import new_id
from agent.host import fuse
from agent.privsep import ceph, client, contexts, limits, start
from agent.privsep.errors import VerbRefused


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    before = limits.current()
    folder = tmp_path / "root"
    (folder / "one").mkdir(parents=True)
    start.start_direct([folder])
    yield folder
    limits.use(before)
    client.set_mode("none")
    for context in contexts.BY_NAME.values():
        context.set_client_mode(True)


def image(folder: Path, name: str = "") -> str:
    path = folder / "one" / (name or f"byv-{new_id()}")
    path.touch(0o400)
    return str(path)


def refused(path: str, why: str, **more: Any) -> None:
    told = {
        "pool": "volumes", "who": ("brickyard", b"AQ=="), "monitors": [("192.0.2.1", 6789)], "writable": False,
        "deadline_s": 5, **more,
    }  # fmt: skip
    with pytest.raises(VerbRefused, match=why):
        ceph.rbd_show(path, **told)


def test_places_that_are_none_are_refused(root: Path, tmp_path: Path) -> None:
    good = image(root)
    refused("/etc/passwd", "not that of an image")
    refused(image(root, "byv-x"), "not that of an image")
    refused(image(root, new_id()), "not that of an image")
    refused(good.replace("/one/", "/one/../one/"), "plainest form")
    refused(str(tmp_path / f"byv-{new_id()}"), "beneath none")
    refused(str(root / "one" / f"byv-{new_id()}"), "can not be opened")
    link = root / "one" / f"byv-{new_id()}"
    link.symlink_to("/etc/passwd")
    refused(str(link), "can not be opened|not an empty file")
    Path(good).chmod(0o600)
    Path(good).write_text("x")
    refused(good, "not an empty file")
    with pytest.raises(VerbRefused):
        ceph.rbd_hide("/etc/passwd", force=True)


@pytest.mark.parametrize(
    "more",
    [
        {"pool": "-x"},
        {"pool": "a/b"},
        {"who": ("", b"AQ==")},
        {"writable": 1},
        {"deadline_s": 10_000},
        {"who": ("x", b"")},
        {"monitors": [("x", 1)]},
    ],
)
def test_words_that_are_none_are_refused(root: Path, more: dict[str, Any]) -> None:
    refused(image(root), "is no|is not", **more)


def test_what_is_not_shown_can_be_hidden(root: Path) -> None:
    assert ceph.rbd_hide(image(root), force=False)


def test_a_daemon_for_ceph_is_started_where_a_back_end_is_in_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuse, "shows_ceph", lambda: True)
    assert "ceph" not in start.wanted()
    assert start.wanted(ceph=True) == (*start.wanted(), "ceph")


def test_a_host_can_show_images_when_fuse_and_qemus_part_are_there(tmp_path: Path) -> None:
    assert not fuse.shows_ceph(tmp_path)
    for name in ("dev/fuse", "usr/lib/s390x-linux-gnu/qemu/block-rbd.so"):
        assert not fuse.shows_ceph(tmp_path)
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert fuse.shows_ceph(tmp_path)
