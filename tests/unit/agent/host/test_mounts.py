"""The kernel's table of mounts: read as it is written, and the right one of several."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host import mounts

TABLE = r"""24 30 0:22 / /proc rw,relatime shared:13 - proc proc rw
30 1 253:0 / / rw,relatime shared:1 - ext4 /dev/mapper/root rw
90 30 0:52 / /srv/vol\040umes rw,relatime shared:5 - nfs4 server:/export/vol\040s rw,vers=4.2,hard
91 30 0:53 / /srv/smb rw,relatime - cifs //server/share rw
92 30 0:54 / /srv/twice rw,relatime - nfs4 old:/a rw
93 30 0:55 / /srv/twice ro,relatime - nfs4 new:/b rw
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(TABLE)
    return file


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/srv/vol umes", "server:/export/vol s"),
        ("/srv/vol umes/a/b", "server:/export/vol s"),
        ("/srv/smb/../smb/x", "//server/share"),
        ("/srv/smbx", "/dev/mapper/root"),
        ("/srv/twice/x", "new:/b"),
        ("/", "/dev/mapper/root"),
    ],
)
def test_a_path_lies_in_the_innermost_and_newest(table: Path, path: str, source: str) -> None:
    found = mounts.mount_of(Path(path), table)
    assert found is not None
    assert found.source == source


def test_what_is_told_of_a_mount(table: Path) -> None:
    found = mounts.mount_of(Path("/srv/twice"), table)
    assert found == mounts.Mount("/srv/twice", "nfs4", "new:/b", os.makedev(0, 55), read_only=True)


@given(st.text(alphabet=st.characters(exclude_characters="\n"), max_size=80))
def test_a_line_of_anything_is_a_mount_or_none(line: str) -> None:
    found = mounts.parsed(line)
    assert found is None or found.point is not None


def test_the_kernels_own_table_tells_the_device_that_stat_tells() -> None:
    found = mounts.mount_of(Path("/proc/self"))
    assert found is not None
    assert (found.type, found.device) == ("proc", Path("/proc/self/stat").stat().st_dev)


def test_an_opened_file_is_found_by_its_device_number(tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    table = tmp_path / "mountinfo"
    numbers = f"{os.major(device)}:{os.minor(device)}"
    table.write_text(f"24 30 0:0 / / rw - ext4 /dev/x rw\n91 30 {numbers} / /srv/smb rw - cifs //server/share rw\n")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert mounts.type_of(fd, table) == "cifs"
        table.write_text(TABLE)
        assert not mounts.type_of(fd, table)
    finally:
        os.close(fd)
