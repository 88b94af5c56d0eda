"""A disk that the kernel drops by itself while it is removed is gone: that is no error."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import NoReturn

import pytest

from agent.host import kernel
from agent.privsep import iscsi
from agent.privsep.errors import KernelRefused


class Refusing(kernel.Kernel):
    """Each write ends with this error."""

    def __init__(self, number: int) -> None:
        self.number = number

    def write(self, path: Path, text: str) -> NoReturn:
        raise OSError(self.number, "refused", str(path))


@pytest.mark.parametrize(("number", "gone"), [(errno.ENODEV, True), (errno.ENOENT, True), (errno.EIO, False)])
def test_gone_meanwhile(number: int, gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iscsi, "_disk_folder", lambda address: tmp_path)
    before = kernel.current()
    kernel.use(Refusing(number))
    try:
        if gone:
            assert iscsi._delete("9:0:0:0", flush=False)
        else:
            with pytest.raises(KernelRefused, match="remove"):
                iscsi._delete("9:0:0:0", flush=False)
    finally:
        kernel.use(before)
