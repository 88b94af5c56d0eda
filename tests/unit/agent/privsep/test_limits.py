"""The limits file: only root's own word counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.privsep import limits
from agent.privsep.errors import LimitsInvalid


def _file(folder: Path, text: str, mode: int = 0o644) -> Path:
    path = folder / "limits.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_reads_roots_without_symbolic_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    path = _file(tmp_path, f'[block]\nroots = ["{tmp_path}/link"]\n')
    assert limits.read(path, owner=os.getuid()) == limits.Limits((str((tmp_path / "real").resolve()),))


def test_reads_volume_groups_and_their_devices(tmp_path: Path) -> None:
    path = _file(tmp_path, '[lvm]\ngroups = ["vg0", "fast-disks"]\ndevices = ["/dev/sdb"]\n')
    assert limits.read(path, owner=os.getuid()) == limits.Limits((), ("vg0", "fast-disks"), ("/dev/sdb",))


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_refuses_a_file_that_others_may_write(tmp_path: Path, mode: int) -> None:
    with pytest.raises(LimitsInvalid, match="others"):
        limits.read(_file(tmp_path, "", mode), owner=os.getuid())


def test_refuses_the_file_of_another(tmp_path: Path) -> None:
    with pytest.raises(LimitsInvalid, match="belongs to uid"):
        limits.read(_file(tmp_path, ""), owner=os.getuid() + 1)


def test_refuses_a_link_and_a_fifo(tmp_path: Path) -> None:
    real = _file(tmp_path, "")
    (tmp_path / "link").symlink_to(real)
    with pytest.raises(OSError, match="symbolic"):
        limits.read(tmp_path / "link", owner=os.getuid())
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(LimitsInvalid, match="regular"):
        limits.read(tmp_path / "fifo", owner=os.getuid())


@pytest.mark.parametrize(
    "text",
    [
        "[block]\nroots = 3",
        "[block]\nroots = [3]",
        "[other]",
        "[block]\nmore = 1",
        "block = 1",
        "x",
        '[block]\nroots = ["/"]',
        '[block]\nroots = ["a/b"]',
        '[block]\nroots = ["/a/../etc"]',
        '[lvm]\ngroups = ["-v"]',
        '[lvm]\ngroups = ["a/b"]',
        '[lvm]\ngroups = ["vg0"]\ndevices = ["sdb"]',
        '[lvm]\ngroups = ["vg0"]\ndevices = ["/dev/sda,/dev/sdb"]',
    ],
)
def test_refuses_what_it_does_not_understand(tmp_path: Path, text: str) -> None:
    with pytest.raises(LimitsInvalid):
        limits.read(_file(tmp_path, text), owner=os.getuid())


@given(st.text())
def test_any_root_is_absolute_or_refused(text: str) -> None:
    try:
        made = limits.of_roots([text])
    except LimitsInvalid:
        return
    assert all(root.startswith("/") and root != "/" for root in made.roots)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_root_can_not_be_led_elsewhere_by_who_owns_the_folder_above(tmp_path: Path) -> None:
    """The agent's user owns the state directory; a link there must not widen what the next daemon may touch."""
    (tmp_path / "state").mkdir()
    (tmp_path / "others").mkdir()
    (tmp_path / "state" / "volumes").symlink_to(tmp_path / "others")
    os.chown(tmp_path / "state" / "volumes", 65534, 65534, follow_symlinks=False)
    path = _file(tmp_path, f'[block]\nroots = ["{tmp_path}/state/volumes"]\n')
    with pytest.raises(LimitsInvalid, match="link"):
        limits.read(path)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4))
def test_limits_travel_as_text(roots: list[str]) -> None:
    found = limits.Limits(tuple(roots))
    assert limits.from_text(limits.to_text(found)) == found


def test_channel_attached_devices_and_ranges(tmp_path: Path) -> None:
    path = _file(tmp_path, '[ccw]\nbus_ids = ["0.0.1800", "0.0.8000-0.0.80ff"]\n')
    assert limits.read(path, owner=os.getuid()).bus_ids == ("0.0.1800", "0.0.8000-0.0.80ff")


@pytest.mark.parametrize("wrong", ["1800", "0.0.18000", "0.0.80ff-0.0.8000", "../0.0.1800", ""])
def test_refuses_what_is_no_bus_id(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(LimitsInvalid, match="no bus id"):
        limits.read(_file(tmp_path, f'[ccw]\nbus_ids = ["{wrong}"]\n'), owner=os.getuid())


def test_ports_of_arrays(tmp_path: Path) -> None:
    path = _file(tmp_path, '[fc]\narray_ports = ["5005076300c20c8a"]\n')
    assert limits.read(path, owner=os.getuid()).array_ports == ("5005076300c20c8a",)


@pytest.mark.parametrize("wrong", ["0x5005076300c20c8a", "5005076300C20C8A", "*", "50:05:07:63:00:c2:0c:8a", ""])
def test_refuses_what_is_no_port_name(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(LimitsInvalid, match="no port name"):
        limits.read(_file(tmp_path, f'[fc]\narray_ports = ["{wrong}"]\n'), owner=os.getuid())
